"""A file that stands for what is no image: a program's item that cannot even be handed to a worker as pixels.

Written by the library, read by a worker's decoder, which fails with the words that are in it. So such an item takes the
way of every other: its failed row has the task of the model, and whoever follows the farm sees it.
"""

from __future__ import annotations

import json

from farm.errors import DecodeError

REFUSED_SUFFIX = ".farm-refused"
MESSAGE_CHARS = 2000  # of what somebody else's code said about its image


def refusal(kind: str, message: str) -> bytes:
    """The file's content. `kind`: the type of the row's error."""
    whole = message[:MESSAGE_CHARS].encode("utf-8", "replace").decode()  # a row holds no half of a character
    return json.dumps([kind, whole]).encode()


def read_refusal(data: bytes) -> DecodeError:
    """Why the item is refused."""
    kind, message = json.loads(data)
    return DecodeError("decode", kind, message)
