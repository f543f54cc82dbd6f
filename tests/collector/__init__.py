"""Mirrors farm/collector."""
