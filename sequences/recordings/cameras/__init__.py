"""Readers of what cameras and their tools record, one a module."""
