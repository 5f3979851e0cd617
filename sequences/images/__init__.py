"""Sets of single images: labelled ones, and ones with poses."""
