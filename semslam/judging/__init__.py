"""Runs and networks measured against the truth."""
