"""What a person types: one module a command, of the command's name, each a function of `app`."""
