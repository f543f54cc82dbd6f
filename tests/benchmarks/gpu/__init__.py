"""Tests of benchmarks/gpu/, on the CPU."""
