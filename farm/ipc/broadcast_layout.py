"""How a broadcast lies in its segment: what its writer and its followers must agree on. Pure.

After a header of words (int64) comes a circular buffer of records: five words (its offset, size, number, images before
it, a checksum), then an Arrow IPC stream. Offsets count all bytes ever written, so that none comes twice. Before the
writer touches anything it says up to where (RESERVED); a follower copies a record and then looks whether what it copied
was given up meanwhile. A record that was not given up may still have another checksum. Its words may not all be visible
yet, so it is read again. A batch is handed out whole or not at all, and a follower that is too slow is told how much it
has missed.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

from farm.ipc.shared_memory import PREFIX

SUFFIX = "-broadcast"  # of the segment's name
NAME = re.compile(rf"{PREFIX}[0-9a-f]+-[0-9a-f]+")  # of the segment, without SUFFIX
WORD = 8
MAGIC, PID, BORN, STATE, RESERVED, END, LAST, OLDEST, NUMBER, IMAGES = range(10)  # words of the header
HEADER_BYTES = 128
ABOUT = struct.Struct("<4q")  # of a record, before its checksum
RECORD_BYTES = ABOUT.size + WORD
FORMAT = 0x4641524D_0002  # "FARM", and a number for this layout
RUNNING, ENDED = 0, 1
PAD = -1  # the size of a record that fills the end of the buffer


def checksum_of(about: tuple[int, ...], data: Any) -> int:
    """The checksum of a record's other words and its bytes."""
    return zlib.crc32(data, zlib.crc32(ABOUT.pack(*about)))


def position_of(offset: int, capacity: int) -> int:
    """The position in the segment of the byte with that offset."""
    return HEADER_BYTES + offset % capacity


def whole_words(size: int) -> int:
    return -(-size // WORD) * WORD
