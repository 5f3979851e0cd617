"""Cameras that are recording now."""
