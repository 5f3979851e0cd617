"""Runs without a depth camera: poses and depth from the colour images."""
