"""What is done in the map of a finished run: cameras found in it, runs joined, mapping that goes on."""
