"""What happens when threads share one model without a lock: a demonstration, not an example to follow.

    python -m farm.examples.unlocked photos yolo26n.pt

Ultralytics keeps the state of a prediction in the model's predictor. The predictor has a lock around the network, but
arguments are set before it is taken: a thread that asks for confident boxes changes what the others get.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np

THREADS = 4
CONFIDENCES = (0.1, 0.8)  # asked for in turn


def boxes_of(images: Sequence[str], weights: str, locked: bool, threads: int = THREADS) -> list[np.ndarray | None]:
    """Boxes (n, 6) of each image from one model that all threads share; None where predicting raised.

    Every other image is asked for with another confidence.
    """
    from ultralytics import YOLO
    from ultralytics.utils import ThreadingLocked

    model = YOLO(weights)

    def predict(task: tuple[str, float]) -> np.ndarray | None:
        image, confidence = task
        try:
            (result,) = model.predict(image, conf=confidence, verbose=False, device="cpu")
        except Exception:
            return None
        return np.asarray(result.boxes.data)  # type: ignore[union-attr]

    work = ThreadingLocked()(predict) if locked else predict
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, zip(images, cycle(CONFIDENCES), strict=False)))


def wrong(found: Sequence[np.ndarray | None], expected: Sequence[np.ndarray | None]) -> int:
    """Images whose boxes are not those that they should have."""
    return sum(
        a is None or b is None or a.shape != b.shape or not np.allclose(a, b, atol=1e-2)
        for a, b in zip(found, expected, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights")
    args = parser.parse_args()
    images = [str(path) for path in sorted(args.folder.iterdir()) if path.suffix.lower() in (".jpg", ".png")]
    expected = boxes_of(images, args.weights, locked=True, threads=1)
    for locked in (True, False):
        bad = wrong(boxes_of(images, args.weights, locked), expected)
        print(f"{THREADS} threads, one model, {'a lock' if locked else 'no lock'}: {bad} of {len(images)} images wrong")


if __name__ == "__main__":
    main()
