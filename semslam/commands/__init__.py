"""What a person types: one module a family of commands, each a function of `app`."""
