"""Mirrors farm/worker."""
