"""The CUDA streams of a worker's model, on which copying, the network and postprocessing overlap.

    copying   images, from pinned memory to the device
    torch's   the network: the stream that is current where the worker launches a batch
    beside    postprocessing of a batch, while the next one is already in the network

Used by adapter.py for checkpoints on CUDA. Exported formats reuse their outputs, so that nothing overlaps there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np


class CudaStreams:
    """The streams of one model on one device."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = device
        self._copying = torch.cuda.Stream(device)
        self._beside = torch.cuda.Stream(device)

    def to_device(self, prepared: Sequence[np.ndarray]) -> Any:
        """Images (H, W, C) uint8 as one tensor (n, H, W, C) on the device, which the network's stream waits for."""
        import torch

        with torch.cuda.stream(self._copying):
            pixels = pinned(prepared, True).to(self._device, non_blocking=True)
        stream = torch.cuda.current_stream(self._device)
        stream.wait_stream(self._copying)
        pixels.record_stream(stream)
        return pixels

    def beside_network(self) -> AbstractContextManager[Any]:
        """Work on the stream that does not wait for the network's next batch."""
        import torch

        return torch.cuda.stream(self._beside)

    def synchronize_beside(self) -> None:
        """Wait for what was begun beside the network: what it reads is given back to the network's stream then."""
        self._beside.synchronize()


def event(device: str) -> Any:
    """An event behind what the device has been given so far; None on the CPU."""
    if device == "cpu":
        return None
    import torch

    recorded = torch.cuda.Event(enable_timing=True)
    recorded.record(torch.cuda.current_stream(device))
    return recorded


def pinned(prepared: Sequence[np.ndarray], pin: bool) -> Any:
    """Images (H, W, C) as one tensor (n, H, W, C) uint8, in memory that the device copies from by itself.

    torch keeps such memory for reuse, and hands it out again only when its copy is done.
    """
    import torch

    whole = torch.empty((len(prepared), *prepared[0].shape), dtype=torch.uint8, pin_memory=pin)
    np.stack(prepared, out=whole.numpy())
    return whole
