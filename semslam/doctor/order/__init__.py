"""What is wrong with the order of frames: their times, what is missing between them, two cameras in turn."""
