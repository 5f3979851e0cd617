"""Files: what is written is there whole or not at all; what is read is a regular file; whose fault an error is."""
