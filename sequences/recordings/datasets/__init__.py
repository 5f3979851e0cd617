"""Readers of data sets, one per module."""
