"""Mirrors farm/models/conversion."""
