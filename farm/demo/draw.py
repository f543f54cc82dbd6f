"""Random pictures of simple shapes with their true boxes: the demo's data, deterministic for a seed.

Each picture is a textured background with a few shapes of random size, colour and rotation. Shapes may hide
only a little of each other, and never leave the picture, so that every true box can be found.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from farm.demo.backdrop import draw_backdrop

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")

SHAPES_PER_PICTURE = (2, 9)  # upper end exclusive
RADIUS_SHARE = (0.06, 0.22)  # of the picture's shorter side
HIDDEN_MAX = 0.12  # share of an earlier shape that later ones may cover
CONTRAST_MIN = 70.0  # distance in BGR between a shape and what is behind it
RING_HOLE = 0.6  # inner radius of a ring
STAR_WAIST = 0.45  # inner radius of a star
CROSS_ARM = 0.33  # half width of an arm
SUBPIXEL_BITS = 4  # cv2 draws polygons at 1/16 pixel

PICTURE_SIZES = ((320, 320), (320, 240), (240, 320), (384, 256), (400, 300))
SUBFOLDERS = ("a", "b")
JPEG_QUALITY = 92

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]
Boxes = list[tuple[int, float, float, float, float]]


def draw_picture(rng: np.random.Generator, width: int, height: int) -> tuple[Picture, Boxes]:
    """A picture, uint8 (height, width, 3) BGR, and its boxes (class_id, x1, y1, x2, y2) in pixels."""
    image = draw_backdrop(rng, width, height)
    shapes: list[tuple[Picture, Picture]] = []  # of each shape: its mask, and what of it can still be seen
    boxes: Boxes = []
    for _ in range(rng.integers(*SHAPES_PER_PICTURE)):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        mask = shape_mask(rng, class_id, width, height)
        left = [(whole, np.where(mask > 127, np.uint8(0), seen)) for whole, seen in shapes]
        if any(_hidden(whole, seen) > HIDDEN_MAX for whole, seen in left):
            continue
        _paint(rng, image, mask)
        shapes = [*left, (mask, mask)]
        boxes.append((class_id, *mask_box(mask)))
    return image, boxes


def shape_mask(rng: np.random.Generator, class_id: int, width: int, height: int) -> Picture:
    """Coverage (height, width) uint8, 0 to 255, of one shape at a random place, size and rotation."""
    radius = rng.uniform(*RADIUS_SHARE) * min(width, height)
    centre = rng.uniform((radius + 1, radius + 1), (width - radius - 1, height - radius - 1))
    mask = np.zeros((height, width), np.uint8)
    for outline, value in _outlines(CLASS_NAMES[class_id], rng.uniform(0, 2 * np.pi)):
        points = np.round((centre + radius * outline) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [points], value, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def mask_box(mask: Picture) -> tuple[float, float, float, float]:
    """The tight box (x1, y1, x2, y2) in pixels around what a mask covers by at least half."""
    y, x = np.nonzero(mask > 127)
    return float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)


def write_dataset(folder: str | Path, count: int, seed: int) -> Path:
    """Draw `count` pictures into `folder` and return the path of its data.yaml.

    Pictures are images/{a,b}/*.jpg with labels/{a,b}/*.txt. Labels are YOLO lines: class, then box centre,
    width and height as shares of the picture.
    """
    folder = Path(folder).resolve()
    rng = np.random.default_rng(seed)
    for place in (folder / kind / sub for kind in ("images", "labels") for sub in SUBFOLDERS):
        place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        width, height = PICTURE_SIZES[rng.integers(len(PICTURE_SIZES))]
        image, boxes = draw_picture(rng, width, height)
        name = f"{SUBFOLDERS[number % len(SUBFOLDERS)]}/{number:05d}"
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        lines = "".join(_label_line(box, width, height) for box in boxes)
        (folder / "labels" / f"{name}.txt").write_text(lines)
    data = {"path": str(folder), "train": "images", "val": "images", "names": dict(enumerate(CLASS_NAMES))}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "data.yaml"


def _label_line(box: tuple[int, float, float, float, float], width: int, height: int) -> str:
    class_id, x1, y1, x2, y2 = box
    centre = f"{(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f}"
    return f"{class_id} {centre} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"


def _outlines(name: str, turn: float) -> list[tuple[Points, int]]:
    """The polygons of a shape within the unit circle, turned, and what to fill each with; later ones cut."""
    if name == "ring":
        return [(_spokes([1.0] * 64, turn), 255), (_spokes([RING_HOLE] * 64, turn), 0)]
    if name == "cross":
        return [(_cross(turn), 255)]
    radii = {"circle": [1.0] * 64, "square": [1.0] * 4, "triangle": [1.0] * 3, "star": [1.0, STAR_WAIST] * 5}
    return [(_spokes(radii[name], turn), 255)]


def _spokes(radii: list[float], turn: float) -> Points:
    """Points at equal angles around the origin, at the given distances from it."""
    angles = turn + np.arange(len(radii)) * 2 * np.pi / len(radii)
    points: Points = np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points


def _cross(turn: float) -> Points:
    """Twelve corners of a plus; its arms end on the unit circle."""
    arm = CROSS_ARM
    end = float(np.sqrt(1 - arm**2))
    quarter = np.array([(end, -arm), (end, arm), (arm, arm)])
    turns = [turn + k * np.pi / 2 for k in range(4)]
    return np.concatenate([quarter @ _rotation(angle).T for angle in turns])


def _rotation(angle: float) -> Points:
    return np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])


def _hidden(whole: Picture, seen: Picture) -> float:
    """Share of a shape that later shapes cover."""
    return 1.0 - float(np.count_nonzero(seen > 127) / np.count_nonzero(whole > 127))


def _paint(rng: np.random.Generator, image: Picture, mask: Picture) -> None:
    """Fill the mask in place with a colour that stands out from what is behind it, slightly shaded."""
    behind = image[mask > 127].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - behind) < CONTRAST_MIN:
        colour = rng.uniform(0, 255, 3)
    grain = rng.normal(0, rng.uniform(1, 8), (*mask.shape, 1))
    share = (mask / 255.0)[..., None]
    image[:] = np.clip(image * (1 - share) + (colour + grain) * share, 0, 255).astype(np.uint8)
