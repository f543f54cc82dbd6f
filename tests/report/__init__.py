"""Mirrors farm/report."""
