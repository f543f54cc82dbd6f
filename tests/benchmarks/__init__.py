"""Tests of benchmarks/: what is pure in them, and whether they run. test_benchmarks.py has what all of them share."""
