"""Mirrors farm/demo."""
