"""What is done to a network's depth before it enters a map."""
