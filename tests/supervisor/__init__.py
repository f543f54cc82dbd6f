"""Mirrors farm/supervisor."""
