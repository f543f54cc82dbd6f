"""Anchors of Ultralytics' heads, kept for every shape: a head keeps those of its last batch only.

For another shape it makes new ones on the CPU, and copies them to the device in a dozen copies that wait for it; also
where only the number of images differs, on which they do not depend. Runs in workers on CUDA.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

SHAPES_KEPT = 128  # some ten thousand points of two numbers each; letterboxing to 640 pixels makes 40 shapes


def anchored_modules(network: Any) -> list[Any]:
    """Ultralytics' detection heads in a network, whose anchors belong to the last shape."""
    return [module for module in network.modules() if hasattr(module, "anchors") and hasattr(module, "strides")]


class WithAnchors:
    """A network, called with a batch (n, C, H, W), whose heads find their anchors made."""

    def __init__(self, network: Callable[[Any], Any], heads: Sequence[Any]) -> None:
        self._network = network
        self._heads = [head for head in heads if hasattr(head, "shape")]
        self._kept: OrderedDict[tuple[int, ...], list[tuple[Any, Any, Any]]] = OrderedDict()

    def __call__(self, batch: Any) -> Any:
        images, key = batch.shape[0], tuple(batch.shape[1:])
        kept = self._kept.get(key)
        if kept is None:
            outputs = self._network(batch)
            self._kept[key] = [(head.anchors, head.strides, head.shape) for head in self._heads]
            if len(self._kept) > SHAPES_KEPT:
                self._kept.popitem(last=False)
            return outputs
        self._kept.move_to_end(key)
        for head, (anchors, strides, shape) in zip(self._heads, kept, strict=True):
            head.anchors, head.strides = anchors, strides
            head.shape = shape if shape is None else type(shape)((images, *shape[1:]))
        return self._network(batch)
