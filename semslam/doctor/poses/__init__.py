"""What the images say of a recording's poses."""
