"""Mirrors farm/tune."""
