"""The metadata of an ONNX file, without a runtime. A protobuf message, whose large fields are stepped over.

Raises ValueError, IndexError or OSError for a file that is none or is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 << 20  # of a text; the names of 20,000 classes take 1 MiB
MOST_FIELDS = 1_000_000  # of an ONNX file, in which every operation and every weight is one
METADATA, GRAPH, OUTPUT = 14, 7, 12  # fields of ONNX's ModelProto (the first two) and GraphProto
FIRST_DIMENSION = (2, 1, 2, 1)  # of an output: type, tensor_type, shape, dim
SYMBOL = 2  # field of a Dimension: the name of a size that is left open
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types of protobuf
VARINT_BYTES = 10

Span = tuple[int, int]  # where a message begins and ends in the file


def metadata(file: BinaryIO, path: Path) -> dict[str, str]:
    """Its metadata_props."""
    return dict(_entry(file, span) for span in _fields(file, [(0, path.stat().st_size)], METADATA))


def has_open_batch(file: BinaryIO, path: Path) -> bool:
    """Is the first size of the first output left open? So it is in a model for any shape."""
    outputs = _fields(file, _fields(file, [(0, path.stat().st_size)], GRAPH), OUTPUT)
    spans = outputs[:1]
    for number in FIRST_DIMENSION:
        spans = _fields(file, spans, number)[:1]
    return any(begin < end for begin, end in _fields(file, spans, SYMBOL))


def _entry(file: BinaryIO, span: Span) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    key, value = (_text(file, _fields(file, [span], number)) for number in (1, 2))
    return key, value


def _text(file: BinaryIO, spans: Sequence[Span]) -> str:
    if not spans:
        return ""
    begin, end = spans[0]
    file.seek(begin)
    if end - begin > MOST_BYTES:
        raise ValueError("too long")
    return file.read(end - begin).decode()


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
