"""What a model finds, in the words of its task."""

from __future__ import annotations

FOUND = {
    "detect": ("detection", "detections"),
    "segment": ("mask", "masks"),
    "pose": ("pose", "poses"),
    "obb": ("oriented box", "oriented boxes"),
}
CLASSIFY = "classify"


def found(count: int, task: str | None) -> str:
    """`12 masks`. Nothing of classification, which finds no things in an image."""
    if task == CLASSIFY:
        return ""
    one, many = FOUND.get(task or "", FOUND["detect"])
    return f"{count:,} {one if count == 1 else many}"
