"""What is measured: each metric names its protocol. NumPy and SciPy alone."""
