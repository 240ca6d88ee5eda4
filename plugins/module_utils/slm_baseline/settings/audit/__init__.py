"""What a host has against what is wanted: facts, rows of drift, and who else writes the same settings."""
