"""The CUDA streams of a worker's model, on which copying, the network and postprocessing overlap.

    copying    images, from pinned memory to the device
    computing  the network and the choice of candidates; CUDA graphs are recorded and replayed here
    beside     what of a batch's postprocessing the device does, while the next batch is already in the network

None is torch's own stream, on which others may work. torch hands memory out again on the stream that it was taken on:
what another stream reads is told to it (`record_stream`), or waited for before it is let go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class CudaStreams:
    """The streams of one model on one device, `cuda:0` for example."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = device
        self._copying = torch.cuda.Stream(device)
        self.computing = torch.cuda.Stream(device)
        self._beside = torch.cuda.Stream(device)
        self.computing.wait_stream(torch.cuda.current_stream(device))  # on which the weights were made ready

    def to_device(self, pixels: Any, rows: Sequence[int] | None) -> Any:
        """Pixels (n, H, W, C) uint8 from pinned memory on the device; the computing stream waits for them.

        `rows`: those that are wanted, in order; None: all.
        """
        import torch

        with torch.cuda.stream(self._copying):
            copied = self._copied(pixels)
            index = None
            if rows is not None:
                wanted = torch.empty(len(rows), dtype=torch.int64, pin_memory=copied.is_cuda)
                wanted.numpy()[:] = rows
                index = self._copied(wanted)
        self.computing.wait_stream(self._copying)
        copied.record_stream(self.computing)
        if index is None:
            return copied
        index.record_stream(self.computing)
        with torch.cuda.stream(self.computing):
            return copied.index_select(0, index)

    def _copied(self, host: Any) -> Any:
        """A copy on the device, which is begun on the current stream. torch keeps pinned memory until it is done."""
        import torch

        copied = torch.empty(host.shape, dtype=host.dtype, device=self._device)
        return copied.copy_(host, non_blocking=True)

    @contextmanager
    def beside_network(self) -> Iterator[None]:
        """Work on what an event of the computing stream was waited for; it is done at the end of the block.

        So whoever lets go of what it read gives nothing back too early.
        """
        import torch

        with torch.cuda.stream(self._beside):
            yield
            done = torch.cuda.Event(blocking=True)
            done.record(self._beside)
        done.synchronize()


def timed_event(stream: Any) -> Any:
    """An event behind what the stream has been given so far. Who waits for it sleeps."""
    import torch

    recorded = torch.cuda.Event(enable_timing=True, blocking=True)
    recorded.record(stream)
    return recorded


def has_come(event: Any) -> bool:
    """Has the device come to it? Where it cannot be asked any more, whoever waits for the event is told why."""
    try:
        return bool(event.query())
    except Exception:
        return True
