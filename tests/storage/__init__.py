"""Mirrors farm/storage."""
