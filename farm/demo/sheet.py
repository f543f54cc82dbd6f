"""A contact sheet: labelled pictures side by side in one PNG, with boxes, class names and confidences.

Pictures are fitted into cells of one size and drawn on afterwards, so that lines and letters look alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.demo.draw import CLASS_NAMES

CELL_PX = 288
CAPTION_PX = 26
MARGIN_PX = 14
LINE_PX = 2
FONT, FONT_SCALE, CAPTION_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0.42
LABEL_PAD_PX = 3

PAPER, CELL, INK = (250, 249, 248), (232, 229, 226), (70, 62, 55)  # BGR
PALETTE = ((60, 60, 230), (210, 120, 20), (60, 160, 40), (20, 150, 245), (180, 50, 150), (150, 140, 0))
WHITE = (255, 255, 255)

Picture = NDArray[np.uint8]


def contact_sheet(
    rows: Sequence[Mapping[str, Any]], root: str | Path, out_png: str | Path, columns: int = 5, limit: int = 20
) -> Path:
    """Draw the first `limit` rows of a run into `out_png`, `columns` side by side, and return its path.

    A row has `path`, relative to `root`, and `boxes` as in a run's parts (null where the picture failed).
    Raises ValueError without rows, and OSError where a picture cannot be read or the sheet not be written.
    """
    tiles = [_tile(row, Path(root)) for row in islice(rows, limit)]
    if not tiles:
        raise ValueError("there are no labelled pictures to show")
    columns = min(columns, len(tiles))
    lines = -(-len(tiles) // columns)
    width, height = sheet_size(columns, lines)
    sheet: Picture = np.full((height, width, 3), PAPER, np.uint8)
    for number, tile in enumerate(tiles):
        x, y = sheet_size(number % columns, number // columns)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    out = Path(out_png)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), sheet):
        raise OSError(f"the contact sheet {out} cannot be written")
    return out


def sheet_size(columns: int, lines: int) -> tuple[int, int]:
    """Width and height in pixels of a sheet with so many columns and lines; there the next cell begins."""
    return MARGIN_PX + columns * (CELL_PX + MARGIN_PX), MARGIN_PX + lines * (CELL_PX + CAPTION_PX + MARGIN_PX)


def _tile(row: Mapping[str, Any], root: Path) -> Picture:
    """One labelled picture in its cell, with the file's name below."""
    picture = cv2.imread(str(root / row["path"]))
    if picture is None:
        raise OSError(f"the picture {root / row['path']} cannot be read")
    scale = CELL_PX / max(picture.shape[:2])
    height, width = (min(CELL_PX, round(side * scale)) for side in picture.shape[:2])
    tile: Picture = np.full((CELL_PX + CAPTION_PX, CELL_PX, 3), PAPER, np.uint8)
    tile[:CELL_PX] = CELL
    x, y = (CELL_PX - width) // 2, (CELL_PX - height) // 2
    shown = tile[y : y + height, x : x + width]  # a view: what is drawn on it is drawn on the tile
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    shown[:] = cv2.resize(picture, (width, height), interpolation=smooth)
    found = sorted(row["boxes"] or (), key=lambda box: float(box["confidence"]))
    for box in found:
        _draw_box(tile, box, scale, (x, y))
    for box in found:  # after all boxes, so that no line crosses a word
        _draw_label(tile, box, scale, (x, y))
    _draw_caption(tile, row["path"], len(found))
    return tile


def _corners(box: Mapping[str, Any], scale: float, offset: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in the pixels of its tile."""
    x1, y1, x2, y2 = (round(float(box[side]) * scale) for side in ("x1", "y1", "x2", "y2"))
    return x1 + offset[0], y1 + offset[1], x2 + offset[0], y2 + offset[1]


def _draw_box(tile: Picture, box: Mapping[str, Any], scale: float, offset: tuple[int, int]) -> None:
    x1, y1, x2, y2 = _corners(box, scale, offset)
    cv2.rectangle(tile, (x1, y1), (x2, y2), WHITE, LINE_PX + 2, cv2.LINE_AA)  # stands out on any colour
    cv2.rectangle(tile, (x1, y1), (x2, y2), _colour(box), LINE_PX, cv2.LINE_AA)


def _draw_label(tile: Picture, box: Mapping[str, Any], scale: float, offset: tuple[int, int]) -> None:
    """Class and confidence on the box's colour: above the box, or inside where there is no room above."""
    text = f"{CLASS_NAMES[box['class_id']]} {box['confidence']:.2f}"
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    width, height = text_width + 2 * LABEL_PAD_PX, text_height + 2 * LABEL_PAD_PX
    left, top, _, _ = _corners(box, scale, offset)
    x = max(0, min(left - 1, CELL_PX - width))
    y = top - height if top >= height else top
    cv2.rectangle(tile, (x, y), (x + width, y + height), _colour(box), cv2.FILLED)
    place = (x + LABEL_PAD_PX, y + height - LABEL_PAD_PX)
    cv2.putText(tile, text, place, FONT, FONT_SCALE, WHITE, 1, cv2.LINE_AA)


def _draw_caption(tile: Picture, path: str, count: int) -> None:
    """File name on the left, number of boxes on the right."""
    baseline = CELL_PX + CAPTION_PX - 9
    cv2.putText(tile, path, (1, baseline), FONT, CAPTION_SCALE, INK, 1, cv2.LINE_AA)
    text = f"{count} box" if count == 1 else f"{count} boxes"
    (width, _), _ = cv2.getTextSize(text, FONT, CAPTION_SCALE, 1)
    cv2.putText(tile, text, (CELL_PX - width - 2, baseline), FONT, CAPTION_SCALE, INK, 1, cv2.LINE_AA)


def _colour(box: Mapping[str, Any]) -> tuple[int, int, int]:
    return PALETTE[int(box["class_id"]) % len(PALETTE)]
