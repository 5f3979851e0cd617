"""What is done to depth before it enters a map: to a network's, and to what a sensor took at other moments."""
