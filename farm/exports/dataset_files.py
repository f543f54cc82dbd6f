"""What makes a run directory a dataset that `yolo val` and `yolo train` open: images link, images.txt, data.yaml.

Ultralytics finds an image's label by replacing the last `/images/` of its path by `/labels/`, and it follows the
links of a folder given in data.yaml before it does. So data.yaml names a list, whose lines are taken as they are:
`./images/a/x.jpg` → `./labels/a/x.txt`. Where a source has a folder called `images` of its own, that would lead
into the source, to labels that are not ours; such folders are listed through links of their own under `.links/`.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from farm.sources.base import IMAGE_EXTENSIONS
from farm.store import write_whole

LISTED = IMAGE_EXTENSIONS - {"gif"}  # Ultralytics takes a gif for a video
LINKS = ".links"


class ImageList:
    """Streams images.txt, and keeps the links that its lines need."""

    def __init__(self, run_dir: Path, root: str) -> None:
        self._run_dir = run_dir
        self._root = root
        self._temporary = run_dir / f".images.txt.{os.getpid()}"
        self._file = open(self._temporary, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
        self._links: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self.left_out = 0
        shutil.rmtree(run_dir / LINKS, ignore_errors=True)

    def add(self, path: str, label: str) -> None:
        """List an image, unless a list of lines cannot hold its name or Ultralytics does not read its kind."""
        folder, name = posixpath.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._prefix(folder, posixpath.dirname(label))
        line = f"{self._folders[folder]}/{name}"
        known = name.rpartition(".")[-1].lower() in LISTED
        if not known or len(line.splitlines()) != 1 or line != line.strip() or not _encodable(line):
            self.left_out += 1
            return
        self._file.write(line + "\n")

    def close(self) -> None:
        """The list is whole: give it its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._run_dir / "images.txt")

    def _prefix(self, folder: str, label_folder: str) -> str:
        """How lines of this folder begin: through `images`, or through a link of the folder's own."""
        inside = label_folder == folder and not folder.startswith("/")
        if inside and "images" not in folder.split("/"):
            return "./images/" + folder if folder else "./images"
        number = f"{len(self._links):05d}"
        self._links[folder] = number
        for kind, target in (
            ("images", os.path.join(self._root, folder)),
            ("labels", os.path.join("..", "..", "labels", label_folder)),
        ):
            (self._run_dir / LINKS / kind).mkdir(parents=True, exist_ok=True)
            os.symlink(target, self._run_dir / LINKS / kind / number)
        return f"./{LINKS}/images/{number}"


def link_images(run_dir: Path, root: str) -> str | None:
    """`images`, a link to the source root. Returns a warning where something else has that name."""
    link = run_dir / "images"
    if link.exists() and not link.is_symlink():
        return f"{link} is there and is no link; it was left alone, so the folder does not open as a dataset"
    temporary = run_dir / f".images.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    os.symlink(root, temporary)
    os.replace(temporary, link)
    return None


def write_data_yaml(
    run_dir: Path, names: Mapping[int, str], kpt_shape: tuple[int, int] | None, save_conf: bool
) -> None:
    """data.yaml without a `path`: it stays true when the folder is moved."""
    data: dict[str, object] = {"train": "images.txt", "val": "images.txt", "names": dict(names)}
    if kpt_shape is not None:
        data["kpt_shape"] = list(kpt_shape)
    head = "# Labels made by farm. Open with `yolo val data=data.yaml` or `yolo train data=data.yaml`.\n"
    if save_conf:
        head += (
            "# They carry a confidence column (output.save_conf), which Ultralytics rejects: export again without it.\n"
        )
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_whole(run_dir / "data.yaml", (head + body).encode())


def _encodable(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
