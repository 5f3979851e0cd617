"""Readers of what applications on phones and tablets export, one per module."""
