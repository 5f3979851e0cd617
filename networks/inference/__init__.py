"""How trained networks run fast, and what they are asked."""
