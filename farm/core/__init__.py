"""Pure decisions: no I/O, no processes."""
