"""What crosses processes."""
