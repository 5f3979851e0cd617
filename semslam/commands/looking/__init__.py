"""Commands to look at maps."""
