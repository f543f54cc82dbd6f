"""24-megapixel photographs: `model.decode: reduced` beside `exact`, and how far their boxes agree.

python -m benchmarks.large_images
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

import farm
from benchmarks.record import parser, report
from farm.models.conversion.comparison import agreement_of
from farm.models.conversion.similarity import Found

SHAPE = (4000, 6000)


def photographs(folder: Path, data: Path, count: int) -> None:
    """COCO photographs, blown up, with the fine grain that a sensor adds."""
    noise = np.random.default_rng(0).normal(0, 4, (*SHAPE, 1)).astype(np.int8)
    for path in sorted((data / "coco" / "images").glob("*.jpg"))[:count]:
        image = cv2.resize(cv2.imread(str(path)), SHAPE[::-1], interpolation=cv2.INTER_CUBIC)  # type: ignore[arg-type]
        grainy = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / path.name), grainy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def label(source: Path, weights: str, decode: str, backend: str) -> tuple[float, dict[str, np.ndarray]]:
    """images/s and boxes (n, 6) by path."""
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "source": str(source),
            "model": {"weights": weights, "decode": decode, "backend": backend},
            "workers": {"count": 2, "devices": "cpu"},
            "output": {"dir": folder, "exports": []},
        }
        summary = farm.run(config)
        rows = pq.read_table(Path(folder) / "parts", columns=["path", "boxes"]).to_pylist()
    fields = ("x1", "y1", "x2", "y2", "confidence", "class_id")
    boxes = {
        row["path"]: np.array([[box[f] for f in fields] for box in row["boxes"]], np.float32).reshape(-1, 6)
        for row in rows
    }
    return summary.images_per_s, boxes


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()
    weights = str(args.data / "models" / "yolo11n-coco.pt")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        photographs(Path(name), args.data, args.images)
        for backend in ("torch", "onnxruntime"):
            rates: dict[str, list[float]] = {"exact": [], "reduced": []}
            found: dict[str, dict[str, np.ndarray]] = {}
            for _ in range(args.rounds):
                for decode in rates:
                    rate, found[decode] = label(Path(name), weights, decode, backend)
                    rates[decode].append(rate)
            exact, reduced = (statistics.median(rates[decode]) for decode in ("exact", "reduced"))
            paths = sorted(found["exact"])
            agreed = agreement_of(
                [Found(found["exact"][p]) for p in paths], [Found(found["reduced"][p]) for p in paths]
            )
            rows.append(
                [backend, f"{exact:.2f}", f"{reduced:.2f}", f"{reduced / exact:.2f}", f"{agreed['matched']:.3f}"]
            )
    note = f"{args.images} JPEGs of 24 megapixels, yolo11n, 2 workers; medians of {args.rounds} interleaved rounds"
    header = ["backend", "exact images/s", "reduced images/s", "ratio", "boxes agreeing"]
    report("Large images: reduced decoding", header, rows, [note], args.save)


if __name__ == "__main__":
    main()
