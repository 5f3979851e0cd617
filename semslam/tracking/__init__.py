"""The camera's pose against the map: registered, lost, found again, or predicted by a network."""
