"""What makes a run directory a dataset that `yolo val` and `yolo train` open: images link, images.txt, data.yaml.

Ultralytics finds an image's label by replacing the last `/images/` of its path by `/labels/`, and it follows the
links of a folder given in data.yaml before it does. So data.yaml names a list, whose lines are taken as they are:
`./images/a/x.jpg` → `./labels/a/x.txt`. Where a source has a folder called `images` of its own, that would lead
into the source, to labels that are not ours; such folders are listed through links of their own under `.links/`.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

import yaml

from farm.core.marks import DATA_YAML, IMAGES, LABELS, LINKS, LIST
from farm.core.marks import EXPORT_HEAD as HEAD
from farm.exports.label_tree import Replacement
from farm.machine.filenames import kept
from farm.sources.base import IMAGE_EXTENSIONS
from farm.storage import filesystem
from farm.storage.atomic_write import write_whole

LISTED = IMAGE_EXTENSIONS - {"gif"}  # Ultralytics takes a gif for a video
SPLIT_AT = "images"  # the folder name that Ultralytics replaces


class ImageList:
    """Streams images.txt, and makes the links that its lines need. Close it, published or not."""

    def __init__(self, folder: Path, root: str, through_images: bool) -> None:
        """`through_images`: whether `images` leads to `root`; without it every line goes through a link."""
        self._folder = folder
        self._root = root
        self._through_images = through_images
        self._tree = Replacement(folder / LINKS)
        self._temporary = folder / f".{LIST}.tmp"
        self._temporary.unlink(missing_ok=True)  # a dead export's, maybe another user's
        self._file = open(self._temporary, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by close()
        self._numbers: dict[str, int] = {}
        self.left_out = 0
        self.left_out_first = ""

    def add(self, path: str, label: str) -> None:
        """List an image, unless a list of lines cannot hold its name or Ultralytics does not read its kind."""
        folder, name = posixpath.split(path)
        path = kept(path)
        known = posixpath.splitext(name)[1][1:].lower() in LISTED
        if not known or len(path.splitlines()) != 1 or path != path.strip() or not _encodable(path):
            self.left_out += 1
            self.left_out_first = self.left_out_first or path
            return
        self._file.write(f"{kept(self._prefix(folder, posixpath.dirname(label)))}/{kept(name)}\n")

    def publish(self) -> None:
        """The list is whole: it and its links take their names."""
        self._file.flush()
        filesystem.fsync(self._file.fileno())
        if self._numbers:
            self._tree.swap()
        else:
            self._tree.drop_both()
        filesystem.replace(self._temporary, self._folder / LIST)

    def close(self) -> None:
        self._file.close()

    def _prefix(self, folder: str, labels: str) -> str:
        """How lines of this folder begin: through `images`, or through links of its own to images and labels.

        Remembered are those that have links; there may be millions of others.
        """
        if self._through_images and labels == folder and SPLIT_AT not in folder.split("/"):
            return f"./{IMAGES}/{folder}" if folder else f"./{IMAGES}"
        if folder in self._numbers:
            return f"./{LINKS}/{IMAGES}/{self._numbers[folder]:05d}"
        number = f"{len(self._numbers):05d}"
        self._numbers[folder] = len(self._numbers)
        for kind, target in (
            (IMAGES, posixpath.join(self._root, folder)),
            (LABELS, posixpath.join(f"../../{LABELS}", labels)),
        ):
            (self._tree.path / kind).mkdir(exist_ok=True)
            os.symlink(target, self._tree.path / kind / number)
        return f"./{LINKS}/{IMAGES}/{number}"


def images_is_free(folder: Path) -> bool:
    """Whether `images` may be made our link: a folder or file of that name is not ours to replace."""
    link = folder / IMAGES
    return link.is_symlink() or not link.exists()


def link_images(folder: Path, root: str) -> None:
    """Make `images` a link to the source root."""
    temporary = folder / f".{IMAGES}.tmp"
    temporary.unlink(missing_ok=True)
    os.symlink(root, temporary)
    filesystem.replace(temporary, folder / IMAGES)


def write_data_yaml(folder: Path, names: Mapping[int, str], kpt_shape: tuple[int, int] | None, save_conf: bool) -> None:
    """data.yaml without a `path`: it stays true when the folder is moved."""
    data: dict[str, object] = {"train": LIST, "val": LIST, "names": dict(names)}
    if kpt_shape is not None:
        data["kpt_shape"] = list(kpt_shape)
    head = f"{HEAD} Open with `yolo val data={DATA_YAML}` or `yolo train data={DATA_YAML}`.\n"
    if save_conf:
        head += (
            "# They carry a confidence column (output.save_conf), which Ultralytics rejects: export again without it.\n"
        )
    body = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_whole(folder / DATA_YAML, (head + body).encode())


def _encodable(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
