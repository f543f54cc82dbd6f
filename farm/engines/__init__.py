"""Engines: where workers run. One module each, imported when it is used.

local.py   this machine: a supervisor, its workers and one collector
"""
