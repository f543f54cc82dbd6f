"""A PyTorch IterableDataset that labels as it goes: for pseudo-labels, active learning, filtering.

for image, boxes in DataLoader(Labelled(paths, "yolo26n.pt"), batch_size=None): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from farm import Farm


class Labelled(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pairs of an image (3, H, W) uint8 RGB and its boxes (n, 6): x1, y1, x2, y2, confidence, class.

    Images that fail are left out. The farm has the processes, so the DataLoader needs none (num_workers=0).
    """

    def __init__(self, paths: Iterable[str | Path], model: Any, workers: Any = "auto") -> None:
        super().__init__()
        self._paths, self._model, self._workers = list(paths), model, workers

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if get_worker_info() is not None:
            raise RuntimeError("use num_workers=0: the farm has processes of its own")
        with Farm(model=self._model, workers=self._workers) as farm:
            for result in farm.map(self._paths):
                if result.status == "ok":
                    boxes = result.boxes
                    columns = [boxes.xyxy, boxes.conf[:, None], boxes.cls[:, None].astype("float32")]
                    image: Any = cv2.imdecode(np.fromfile(result.path, np.uint8), cv2.IMREAD_COLOR)
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(np.concatenate(columns, axis=1))
