"""Readers of recordings, one layout a module."""
