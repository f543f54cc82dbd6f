"""Mirrors farm/cli."""
