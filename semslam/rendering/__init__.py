"""Maps as images, without a display."""
