"""Readers of data sets, one a module."""
