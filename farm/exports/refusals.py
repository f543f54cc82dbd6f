"""How many images of a dataset Ultralytics will leave out, as far as their labels and sizes tell: a warning, no more.

Label files stay what `yolo predict` writes, refused or not. Kept for each refused image: eight bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.exports.base import Warnings
from farm.exports.label_conflicts import name_hashes
from farm.exports.ultralytics_rules import LEAST_SIDE, Dataset, is_conspicuous, refusal

COLUMN = {"obb": "obb"}  # where a task has its classes, if not in `boxes`
AS_PREDICT = "label files are as `yolo predict` writes them"
ADVICE = {"obb": f"{AS_PREDICT}, output.clip=true keeps oriented boxes inside the image"}
SMALL = f"a side of less than {LEAST_SIDE} pixels"


class Refusals:
    """What was refused so far; begins with what an earlier export found. `first`: a label and why it is refused."""

    def __init__(self, task: str, earlier: np.ndarray | None = None, first: tuple[str, str] | None = None) -> None:
        self._classes = COLUMN.get(task, "boxes")
        self._advice = ADVICE.get(task, AS_PREDICT)
        self.hashes = [] if earlier is None else [earlier]
        self.first = first

    @property
    def count(self) -> int:
        return sum(map(len, self.hashes))

    def look(self, batch: pa.RecordBatch, labels: Sequence[str], texts: Sequence[str], dataset: Dataset) -> None:
        """Judge the images of a batch by what is in their label files, if they have one, and by their size."""
        highest = pc.max(pc.struct_field(batch[self._classes].flatten(), "class_id")).as_py()
        doubtful = highest is not None and highest >= dataset.classes
        small = pc.less(pc.min_element_wise(batch["width"], batch["height"], skip_nulls=False), LEAST_SIDE)
        refused = [(labels[at], SMALL) for at in np.flatnonzero(small.fill_null(False)).tolist()]
        for label, text in zip(labels, texts, strict=True):
            if (doubtful or is_conspicuous(text)) and (reason := refusal(text, dataset)):
                refused.append((label, reason))
        if refused:
            self.hashes.append(np.unique(name_hashes([label for label, _ in refused])))
            self.first = self.first or refused[0]

    def warn(self, warnings: Warnings, images: int) -> None:
        """Say so, if there is anything to say."""
        if self.count:
            example = f" (labels/{self.first[0]!r}: {self.first[1]})" if self.first else ""
            warnings.add(
                f"Ultralytics will call {self.count:,} of {images:,} images corrupt and leave them out{example}; "
                f"{self._advice}"
            )
