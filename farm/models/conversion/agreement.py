"""How a run's labels compare with torch's, in numbers: what a comparison answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the detections of a run compare with those of torch in fp32 with exact decoding, on a sample of images.

    `matched` is the share of the reference's `boxes` that it also finds: of the same class, and alike to 0.9 or more in
    what the task gives (similarity.py says how that is measured); `confidence` the mean difference in confidence of
    those, signed. `compared` says in words what was counted; a classifier has one top class an image.
    """

    matched: float
    confidence: float
    boxes: int
    found: int
    images: int
    reference: str = "torch fp32"
    compared: str = "boxes"

    @property
    def both_ways(self) -> float:
        """The smaller of two shares: of the reference's that it finds, and of its own that the reference has."""
        return min(self.matched, self.matched * self.boxes / self.found) if self.found else self.matched
