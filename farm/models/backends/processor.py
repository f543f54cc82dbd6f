"""What the processor can compute with."""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def has_bf16() -> bool:
    """Does the processor multiply in bf16?"""
    try:
        flags = next(line for line in CPU_INFO.read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return False
    return not BF16_FLAGS.isdisjoint(flags.split())


def identity() -> str:
    """Its model and all that it offers, as Linux tells it: what is compiled for a processor is for such ones alone."""
    try:
        lines = CPU_INFO.read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return ""
    told = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")
    return "\n".join(line for line in lines if line.split(":")[0].strip() in told)
