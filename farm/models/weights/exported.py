"""What a model that Ultralytics exported says of its size and its classes: read on the supervisor's side, without torch
or a runtime.

`predict` runs an export of fixed shape at the size that it was made for, whatever it is asked for, and one of any shape
at the size that it is asked for. Which of both it is stands in its metadata: in an ONNX file's metadata_props, before a
TensorRT engine, within a TorchScript archive, beside an OpenVINO network.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MOST_BYTES = 16 << 20  # of metadata; the names of 20,000 classes take 1 MiB
MOST_FIELDS = 1_000_000  # of an ONNX file, in which every operation and every weight is one
NAMES_CHARS = 1 << 20  # of the names of classes: some twenty thousand of them
LITERAL_CHARS = 4096  # of an entry that is written as Python has it
LENGTH_BYTES = 4  # before a TensorRT engine: how long the metadata is
SCRIPT_ENTRY = "extra/config.txt"
CPU_INFO = Path("/proc/cpuinfo")
INT8_MATRICES = "amx_int8"
XML_BYTES = 64 << 20
QUANTISED, ANY_SHAPE = b'type="FakeQuantize"', b'shape="?'  # in OpenVINO's XML
METADATA, GRAPH, OUTPUT = 14, 7, 12  # fields of ONNX's ModelProto (the first two) and GraphProto
FIRST_DIMENSION = (2, 1, 2, 1)  # of an output: type, tensor_type, shape, dim
SYMBOL = 2  # field of a Dimension: the name of a size that is left open
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types of protobuf
VARINT_BYTES = 10
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
            return _onnx_metadata(file, path)
    if path.suffix == ".engine":
        return _before_engine(path)
    if path.suffix == ".torchscript":
        return _in_archive(path)
    return _beside(path) if path.name.endswith("_openvino_model") else {}


def _export(metadata: dict[str, Any]) -> Export:
    """As Ultralytics' backends have it: nothing is fixed without metadata, everything is where it says nothing."""
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


# OpenVINO, TensorRT, TorchScript


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


# ONNX: a protobuf message, whose large fields are stepped over

Span = tuple[int, int]  # where a message begins and ends in the file


def _read_onnx(path: Path) -> Export | None:
    with open(path, "rb") as file:
        whole = [(0, path.stat().st_size)]
        metadata = _onnx_metadata(file, path)
        if "imgsz" not in metadata:
            return Export(None, is_fixed=False)
        outputs = _fields(file, _fields(file, whole, GRAPH), OUTPUT)
        place = outputs[:1]
        for number in FIRST_DIMENSION:
            place = _fields(file, place, number)[:1]
        is_dynamic = any(begin < end for begin, end in _fields(file, place, SYMBOL))
    declared = _declared(metadata)
    if declared is not None and declared != is_dynamic:
        return None  # the runtime alone knows
    return Export(_literal(metadata["imgsz"]), not is_dynamic)


def _onnx_metadata(file: BinaryIO, path: Path) -> dict[str, Any]:
    return dict(_entry(file, span) for span in _fields(file, [(0, path.stat().st_size)], METADATA))


def _entry(file: BinaryIO, span: Span) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    key, value = (_text(file, _fields(file, [span], number)) for number in (1, 2))
    return key, value


def _text(file: BinaryIO, spans: Sequence[Span]) -> str:
    if not spans:
        return ""
    begin, end = spans[0]
    file.seek(begin)
    return _whole(file.read(min(end - begin, MOST_BYTES + 1))).decode()


def _fields(file: BinaryIO, messages: Sequence[Span], number: int) -> list[Span]:
    """The delimited fields of that number in all of the messages."""
    return [span for message in messages for found, span in _delimited(file, message) if found == number]


def _delimited(file: BinaryIO, message: Span) -> Iterator[tuple[int, Span]]:
    position, end = message
    for _ in range(MOST_FIELDS):
        if position >= end:
            return
        tag, position = _varint(file, position)
        if tag & 7 == VARINT:
            _, position = _varint(file, position)
        elif tag & 7 == DELIMITED:
            length, position = _varint(file, position)
            if position + length > end:
                raise ValueError("torn")
            yield tag >> 3, (position, position + length)
            position += length
        elif tag & 7 in (FIXED32, FIXED64):
            position += 4 if tag & 7 == FIXED32 else 8
        else:
            raise ValueError("no protobuf")
    raise ValueError("too many fields")


def _varint(file: BinaryIO, position: int) -> tuple[int, int]:
    """A number, seven bits a byte from the lowest on, and where it ends."""
    file.seek(position)
    data = file.read(VARINT_BYTES)
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("torn")
