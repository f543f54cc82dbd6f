"""The process that labels."""
