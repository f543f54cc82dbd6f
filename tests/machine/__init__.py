"""Mirrors farm/machine."""
