"""How many images fit into a share of a CUDA device's memory. Measured in the worker, after its model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MEASURED_BATCHES = (1, 3)  # whose memory tells how many images fit
FILLED_SHARE = 0.8  # of a worker's part of a device's memory; a second batch is begun while one is postprocessed


def largest_batch(wanted: int, room: int, measured: tuple[int, int], peaks: Sequence[int]) -> int:
    """The largest batch whose peak, a straight line through two measured ones, leaves a part of the room free.

    `room` and `peaks` in bytes. Pure.
    """
    fewer, more = measured
    each = max(1, (peaks[1] - peaks[0]) // (more - fewer))
    fixed = peaks[0] - each * fewer
    return max(1, min(wanted, int((room * FILLED_SHARE - fixed) // each)))


def room_bytes(device: str, share: float) -> int:
    """What a share of the device's memory has left for this process."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device)  # what this process has taken is its own
    return min(free, int(total * share))


def peak_bytes(device: str, predict: Callable[[], Any]) -> int:
    """Memory of the device at its fullest while `predict` runs."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    predict()
    return int(torch.cuda.max_memory_allocated(device))
