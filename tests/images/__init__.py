"""Mirrors farm/images."""
