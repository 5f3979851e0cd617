"""Networks that tell the camera's pose from one image."""
