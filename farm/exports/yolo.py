"""The YOLO export: labels/**/*.txt mirroring the source, and the files that make the run directory a dataset.

Runs in the process that asks for it, after the run. Two passes over the parts: the first finds images that would
share a label file, the second writes. Of a run of millions it keeps eight bytes an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm.exports.base import ExportReport, ExportRequest
from farm.exports.dataset_files import ImageList, link_images, write_data_yaml
from farm.exports.label_lines import LINE_COLUMNS, label_texts
from farm.exports.label_tree import LabelTree, label_path
from farm.schema import STATUS_OK, path_of

WARNINGS_SHOWN = 20
PATHS = ["status", "path", "path_bytes"]
Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


def export(request: ExportRequest, batches: Batches) -> ExportReport:
    """Write labels for every labelled image; no file where nothing was found. Replaces what an earlier export wrote."""
    warnings: list[str] = []
    losers = _losers(request, batches, warnings)
    tree = LabelTree(request.run_dir / "labels")
    listed = None if request.task == "classify" else ImageList(request.run_dir, request.source_root)
    images, kpt_shape = 0, None
    for batch in batches([*PATHS, "width", "height", *LINE_COLUMNS[request.task]]):
        good = batch.filter(pc.equal(batch["status"], STATUS_OK))
        if request.task == "pose":
            kpt_shape = kpt_shape or _kpt_shape(good["keypoints"])
        texts = label_texts(good, request.task, request.names, request.save_conf)
        for path, text in zip(_paths(good), texts, strict=True):
            if path in losers:
                continue
            images += 1
            _write(request, tree, listed, path, text, warnings)
    tree.swap()
    if listed is not None:
        _dataset(request, listed, kpt_shape, warnings)
    return ExportReport(str(request.run_dir / "labels"), tree.files, images, _shortened(warnings))


def _write(
    request: ExportRequest, tree: LabelTree, listed: ImageList | None, path: str, text: str, warnings: list[str]
) -> None:
    label = label_path(path, request.source_root)
    if text:
        try:
            tree.write(label, text)
        except OSError as error:
            warnings.append(f"no label file for {path!r}: {error.strerror}")
            return
    if listed is not None:
        listed.add(path, label)


def _dataset(request: ExportRequest, listed: ImageList, kpt_shape: tuple[int, int] | None, warnings: list[str]) -> None:
    listed.close()
    warning = link_images(request.run_dir, request.source_root)
    write_data_yaml(request.run_dir, request.names, kpt_shape, request.save_conf)
    (request.run_dir / "labels.cache").unlink(missing_ok=True)  # Ultralytics' cache of what was there before
    if warning:
        warnings.append(warning)
    if listed.left_out:
        warnings.append(
            f"{listed.left_out} images are labelled but not listed in images.txt: "
            f"Ultralytics cannot read their names from a list, or not their kind"
        )


def _losers(request: ExportRequest, batches: Batches, warnings: list[str]) -> set[str]:
    """Images whose label file belongs to another: of those that share a name but for its ending, the first keeps it."""
    hashes = [
        np.frombuffer(b"".join(_hash(label_path(path, request.source_root)) for path in _paths(batch)), "<u8")
        for batch in _labelled(batches)
    ]
    values, counts = np.unique(np.concatenate([*hashes, np.empty(0, "<u8")]), return_counts=True)
    contested = set(values[counts > 1].tolist())
    if not contested:
        return set()
    sharing: dict[str, list[str]] = {}
    for batch in _labelled(batches):
        for path in _paths(batch):
            label = label_path(path, request.source_root)
            if int.from_bytes(_hash(label), "little") in contested:
                sharing.setdefault(label, []).append(path)
    losers: set[str] = set()
    for label, paths in sorted(sharing.items()):
        first, *others = sorted(paths)
        losers.update(others)
        if others:
            warnings.append(f"{', '.join(map(repr, others))} would share labels/{label} with {first!r}, which keeps it")
    return losers


def _hash(label: str) -> bytes:
    return blake2b(label.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _labelled(batches: Batches) -> Iterator[pa.RecordBatch]:
    for batch in batches(PATHS):
        yield batch.filter(pc.equal(batch["status"], STATUS_OK))


def _paths(batch: pa.RecordBatch) -> list[str]:
    """File names as Python holds them."""
    paths: list[str] = batch["path"].to_pylist()
    if batch["path_bytes"].null_count == batch.num_rows:
        return paths
    return [path_of(path, exact) for path, exact in zip(paths, batch["path_bytes"].to_pylist(), strict=True)]


def _kpt_shape(keypoints: pa.Array) -> tuple[int, int] | None:
    """(keypoints of an object, values of each), from the first object there is."""
    objects = keypoints.flatten()
    if not len(objects):
        return None
    points = objects[0].values
    return len(points), 2 if points.field("confidence").null_count else 3


def _shortened(warnings: list[str]) -> tuple[str, ...]:
    more = len(warnings) - WARNINGS_SHOWN
    return tuple(warnings[:WARNINGS_SHOWN]) + ((f"and {more} more of these",) if more > 0 else ())
