"""What is wrong with the depth of a recording, told from its images."""
