"""The fault matrix: real faults injected into real runs, and the rows checked."""
