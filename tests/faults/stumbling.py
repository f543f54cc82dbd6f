"""A fake model in whose process a folder behaves like a mount that stumbles.

    model: {factory: "tests.faults.stumbling:make", args: {folder: /images, flag: /tmp/flag, bad: /tmp/bad, stuck: /tmp/stuck}}

Looking at or opening anything below `folder` fails with the errno that the file `flag` holds, as long as there is one;
`hang` in its place never returns. The images that the file `bad` names cannot be opened at any time (EIO), those that
`stuck` names never come back from opening. Where workers are threads, `restore` gives the process back what was
replaced.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from farm.models import fake

HANG_S = 3600.0
_OPEN, _STAT = os.open, os.stat


def make(folder: str, flag: str, bad: str, stuck: str = os.devnull, **args: Any) -> fake.FakeModel:
    damaged, hanging = (set(Path(names).read_text().split()) for names in (bad, stuck))

    def stumble(path: Any) -> None:
        if not isinstance(path, str) or not path.startswith(folder):
            return
        if os.path.basename(path) in damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if os.path.basename(path) in hanging:
            time.sleep(HANG_S)
        try:
            with open(flag) as file:
                said = file.read()
        except FileNotFoundError:
            return
        if said == "hang":
            time.sleep(HANG_S)
        elif said:
            raise OSError(int(said), os.strerror(int(said)), path)

    def stumbling_open(path: Any, *args: Any, **options: Any) -> int:
        stumble(path)
        return _OPEN(path, *args, **options)

    def stumbling_stat(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if isinstance(path, str) and os.path.basename(path) not in damaged | hanging:
            stumble(path)
        return _STAT(path, *args, **options)

    os.open, os.stat = stumbling_open, stumbling_stat
    return fake.make(**args)


def restore() -> None:
    os.open, os.stat = _OPEN, _STAT
