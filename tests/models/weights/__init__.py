"""Mirrors farm/models/weights."""
