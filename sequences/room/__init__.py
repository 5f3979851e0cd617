"""The built-in synthetic room with exact truth."""
