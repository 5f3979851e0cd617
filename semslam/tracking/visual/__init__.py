"""Tracking by colour alone: corners followed through the images, a map of keyframes and landmarks, its adjustment."""
