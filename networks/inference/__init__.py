"""How trained networks run fast, and where they look."""
