"""A sequence becomes a run folder; finished runs become other runs and files."""
