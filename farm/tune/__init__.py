"""Plans, measured on a sample."""
