"""Mirrors farm/cluster."""
