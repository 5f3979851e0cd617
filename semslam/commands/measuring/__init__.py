"""Commands that measure maps, trajectories and networks."""
