"""A frame registered against what the map shows: geometry and grey together, coarse to fine."""
