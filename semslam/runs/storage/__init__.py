"""How the state of a run is kept on disk: whole, as checkpoints, by one process at a time."""
