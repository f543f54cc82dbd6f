"""Mirrors farm/ipc."""
