"""The surfel map: its store, what each pixel shows of it, how measurements and class evidence enter it."""
