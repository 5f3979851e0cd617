"""The commands: one module for each, of the command's name, which adds a function to `app`."""
