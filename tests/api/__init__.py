"""Mirrors farm/api."""
