"""Memory that was freed stays with the process, for the next image. Called at the start of a worker's process.

glibc gives a large block back to the kernel when it is freed, and the next image pays for each of its pages again: a
tenth of the time of a decoding thread that holds no image of its own. What is kept beyond use is KEPT_BYTES a thread at
most, half of what glibc may come to keep by itself.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 32 << 20  # the most that glibc's threshold for blocks of their own can be, and an image of 11 megapixels
SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")  # see mallopt(3)
TUNABLES, TUNABLES_OF_MALLOC = "GLIBC_TUNABLES", "glibc.malloc."


def keep_freed_memory() -> bool:
    """Was it done? Not where the allocator is not glibc's, nor where the environment tells it something already."""
    if any(name in os.environ for name in SET_BY_USER) or TUNABLES_OF_MALLOC in os.environ.get(TUNABLES, ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS
        return False
    return all(mallopt(parameter, KEPT_BYTES) == 1 for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
