"""Readers of what cameras and their tools record, one per module."""
