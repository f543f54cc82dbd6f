"""Mirrors farm/core."""
