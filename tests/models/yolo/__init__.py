"""Mirrors farm/models/yolo."""
