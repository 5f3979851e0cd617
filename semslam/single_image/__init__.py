"""Networks on single images: predictions, and where a network looks."""
