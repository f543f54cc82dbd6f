"""Farm, for programs."""
