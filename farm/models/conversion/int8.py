"""int8 for OpenVINO: an export in float, quantised by NNCF and calibrated with the user's images.

Runs in the converter. Images are prepared as a worker does it. What makes boxes and scores stays in float, where a
coarse step would move them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farm.config.sections import ModelConfig
from farm.machine import available_resources
from farm.models.conversion.sample_images import readable

INNER = r"\.(?:one2one_)?cv[23]\.\d+\.[01]\b"  # of a detection head: before its last convolutions


def quantise(made: Path, config: ModelConfig, sample: Sequence[str]) -> Path:
    """An OpenVINO folder in int8, beside the one in float. Raises ValueError where no image can be read."""
    import nncf
    import openvino

    model = openvino.Core().read_model(next(made.glob("*.xml")))
    images = prepared_images(config, sample)
    if not images:
        raise ValueError("none of the sampled images can be read, and int8 needs some to calibrate with")
    inputs = [np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / 255 for image in images]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model), validate=False),
    )
    target = made.with_name("quantised_openvino_model")
    target.mkdir()
    openvino.save_model(quantised, target / "model.xml", compress_to_fp16=False)
    shutil.copyfile(made / "metadata.yaml", target / "metadata.yaml")
    return target


def _kept_in_float(model: Any) -> list[str]:
    """Where boxes and scores are made: operations of the head but its first two convolutions, and all sigmoids."""
    operations = model.get_ordered_ops()
    sigmoids = [op.get_friendly_name() for op in operations if op.get_type_name() == "Sigmoid"]
    if not sigmoids:
        return []
    head = sigmoids[-1].split("/", 1)[0]
    coarse = re.compile(re.escape(head) + INNER)
    names = {op.get_friendly_name() for op in operations}
    kept = {name for name in names if name.startswith((f"{head}/", f"{head}.")) and not coarse.match(name)}
    return sorted(kept.union(sigmoids))


def prepared_images(config: ModelConfig, sample: Sequence[str]) -> list[np.ndarray]:
    """Images letterboxed as a worker does it, by the torch model's own settings."""
    from farm.models.yolo.adapter import YoloModel

    plain = config.model_copy(update={"precision": "fp32", "backend": "torch"})
    model = YoloModel(plain, "cpu", available_resources.usable_cpus())
    return [prepared for _, prepared, _ in readable(model, sample, None)]
