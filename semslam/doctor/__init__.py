"""What is wrong with a recording."""
