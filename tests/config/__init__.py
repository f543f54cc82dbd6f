"""Mirrors farm/config."""
