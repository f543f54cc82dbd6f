"""What a model that Ultralytics exported says of its size and its classes: read on the supervisor's side, without torch
or a runtime.

`predict` runs an export of fixed shape at the size that it was made for, whatever it is asked for, and one of any shape
at the size that it is asked for. Its metadata says whether the size is fixed: in an ONNX file's metadata_props, before
a TensorRT engine, within a TorchScript archive, beside an OpenVINO network.
"""

from __future__ import annotations

import ast
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from farm.models.weights import onnx_metadata

MOST_BYTES = 16 << 20  # of metadata; the names of 20,000 classes take 1 MiB
NAMES_CHARS = 1 << 20  # of the names of classes: some twenty thousand of them
LITERAL_CHARS = 4096  # of an entry that is written as Python has it
LENGTH_BYTES = 4  # before a TensorRT engine: how long the metadata is
SCRIPT_ENTRY = "extra/config.txt"
CPU_INFO = Path("/proc/cpuinfo")
INT8_MATRICES = "amx_int8"
XML_BYTES = 64 << 20
QUANTISED, ANY_SHAPE = b'type="FakeQuantize"', b'shape="?'  # in OpenVINO's XML
BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError, RecursionError,
          MemoryError, NotImplementedError, yaml.YAMLError, zipfile.BadZipFile)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Export:
    """`imgsz`: as it stands in the metadata; of meaning where `is_fixed`."""

    imgsz: Any
    is_fixed: bool


def read(path: Path) -> Export | None:
    """Whether predict runs the export at a size of its own; None where that cannot be told."""
    try:
        if path.suffix == ".onnx":
            return _read_onnx(path)
        if path.suffix == ".engine":
            metadata = _before_engine(path)
            return None if "imgsz" in metadata and _declared(metadata) is None else _export(metadata)
        if path.suffix == ".torchscript":
            return _export(_in_archive(path))
        if path.name.endswith("_openvino_model"):
            return _read_openvino(path)
    except BROKEN:
        pass
    return None


def class_names(path: Path) -> Any:
    """Names of its classes by number, as they stand in the metadata; None where that does not say them."""
    try:
        names = _metadata(path).get("names")
        return ast.literal_eval(names) if isinstance(names, str) and len(names) <= NAMES_CHARS else names
    except BROKEN:
        return None


def _metadata(path: Path) -> dict[str, Any]:
    if path.suffix == ".onnx":
        with open(path, "rb") as file:
            return dict(onnx_metadata.metadata(file, path))
    if path.suffix == ".engine":
        return _before_engine(path)
    if path.suffix == ".torchscript":
        return _in_archive(path)
    return _beside(path) if path.name.endswith("_openvino_model") else {}


def _export(metadata: dict[str, Any]) -> Export:
    """Its size, and whether that is fixed. As for Ultralytics' backends, it is not without metadata, and is where the
    metadata does not say."""
    return Export(_literal(metadata.get("imgsz")), "imgsz" in metadata and not _declared(metadata))


def _declared(metadata: dict[str, Any]) -> bool | None:
    """Was it exported for any shape? None where the metadata does not say, as before Ultralytics 8.3."""
    value = _literal(metadata.get("args", {})).get("dynamic")
    return None if value is None else bool(value)


def _literal(value: Any) -> Any:
    """Some formats hold text alone: [640, 640] as it is printed."""
    if isinstance(value, str):
        if len(value) > LITERAL_CHARS:
            raise ValueError("too long")
        return ast.literal_eval(value)
    return value


def _whole(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise ValueError("too long")
    return data


def _read_openvino(folder: Path) -> Export | None:
    export = _export(_beside(folder))
    if export.is_fixed or INT8_MATRICES not in _cpu_info():
        return export
    with open(next(folder.glob("*.xml")), "rb") as file:
        network = file.read(XML_BYTES)
    if QUANTISED in network and ANY_SHAPE in network:
        return Export(export.imgsz, is_fixed=True)  # Ultralytics compiles it anew for each shape, and keeps those few
    return export


def _beside(folder: Path) -> dict[str, Any]:
    sidecar = folder / "metadata.yaml"
    if not sidecar.exists():
        return {}
    with open(sidecar, "rb") as file:
        metadata: dict[str, Any] = yaml.safe_load(_whole(file.read(MOST_BYTES + 1)).decode())
    return metadata


def _cpu_info() -> str:
    return CPU_INFO.read_text() if CPU_INFO.exists() else ""


def _before_engine(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= path.stat().st_size - LENGTH_BYTES:
            return {}
        data = file.read(min(length, MOST_BYTES + 1))
    try:
        metadata = json.loads(_whole(data))
    except ValueError:
        if len(data) > MOST_BYTES:
            raise
        return {}  # the engine itself
    if not isinstance(metadata, dict):
        raise ValueError("no metadata")
    return metadata


def _in_archive(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith(SCRIPT_ENTRY))
        if entry.file_size > MOST_BYTES:
            raise ValueError("too long")
        metadata: dict[str, Any] = json.loads(archive.read(entry))
    return metadata


def _read_onnx(path: Path) -> Export | None:
    with open(path, "rb") as file:
        metadata = onnx_metadata.metadata(file, path)
        if "imgsz" not in metadata:
            return Export(None, is_fixed=False)
        is_dynamic = onnx_metadata.has_open_batch(file, path)
    declared = _declared(metadata)
    if declared is not None and declared != is_dynamic:
        return None  # the runtime alone knows
    return Export(_literal(metadata["imgsz"]), not is_dynamic)
