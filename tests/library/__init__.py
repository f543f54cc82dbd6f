"""Mirrors farm/library."""
