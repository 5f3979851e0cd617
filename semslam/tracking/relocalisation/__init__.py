"""A camera found again: keyframes that look alike, places whose features are found again, images in a finished map."""
