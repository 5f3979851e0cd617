"""The networks: their architectures, how they are trained and how they run fast."""
