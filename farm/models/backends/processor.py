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
