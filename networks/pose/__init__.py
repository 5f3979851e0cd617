"""Networks that predict the camera's pose from one image."""
