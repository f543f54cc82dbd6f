"""The process that starts, feeds and replaces workers."""
