"""torch: what runs a checkpoint as it is, and what everything else is compared with."""

from __future__ import annotations

from farm.models.backends.base import Backend

TORCH = Backend(name="torch", precisions=("fp32", "fp16"), suffixes=(".pt", ".yaml"), on_cuda=True)
