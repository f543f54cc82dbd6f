"""Mirrors farm/verify."""
