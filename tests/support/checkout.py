"""Where the checkout lies, and the real images and models beside it. Imports nothing of farm."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("FARM_SHARED_DATA") or ROOT.parent / "shared" / "data")  # coco/ and models/
