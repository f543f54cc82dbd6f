"""Mirrors farm/examples."""
