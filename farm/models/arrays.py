"""Arrow arrays of lists and structs from numpy columns. Runs in workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from farm.core.schema import BOX


def lists(lengths: Sequence[int] | np.ndarray, values: pa.Array) -> pa.Array:
    """A list array over `values` cut into the given lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def structs(kind: pa.StructType, columns: Sequence[np.ndarray | None], count: int) -> pa.Array:
    arrays = [
        pa.nulls(count, field.type) if column is None else pa.array(np.ascontiguousarray(column), field.type)
        for field, column in zip(kind, columns, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def box_structs(classes: np.ndarray, confidences: np.ndarray, xyxy: np.ndarray) -> pa.Array:
    columns = [classes.astype(np.int32), confidences, *xyxy.T]
    return structs(BOX, columns, len(classes))
