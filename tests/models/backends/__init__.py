"""Mirrors farm/models/backends."""
