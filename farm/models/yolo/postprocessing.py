"""What is changed in a predictor's postprocessing, so that results leave the device sooner. Runs in workers.

The results are the same. A device is neither filled with a batch's masks nor asked for each image by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

TASKS_ON_HOST = ("detect", "pose", "obb")  # what is left to do with their detections needs no device


def on_host(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_results` with the detections of a whole batch brought from the device in one copy."""

    def construct_on_host(found: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        import torch

        whole = torch.cat(list(found)).cpu()
        return construct(list(whole.split([len(each) for each in found])), *args, **kwargs)

    return construct_on_host


def with_polygons(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_result` with an image's masks made polygons at once: a whole batch of masks fills a device."""

    def construct_with_polygons(*args: Any, **kwargs: Any) -> Any:
        result = construct(*args, **kwargs)
        if result.masks is not None:
            result.masks = SimpleNamespace(xy=result.masks.xy)
        return result

    return construct_with_polygons
