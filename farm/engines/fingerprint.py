"""The fingerprint of a run: everything that changes its labels, or what they belong to.

It is written into run.json, and compared by farm.core.continuation when a run directory is to be continued.
"""

from __future__ import annotations

from typing import Any

from farm.core.continuation import BACKEND, CONVERSION, DEVICE, MODEL, SOURCE_ROOT, THREADS, VERSION, WEIGHTS_DIGEST
from farm.engines.base import Prepared
from farm.machine.filenames import kept
from farm.models import backends, device_decoding
from farm.models.conversion.executables import Executable
from farm.models.packages import package_version

FACTORY_DIGEST = "factory"  # of a model that has no weights file; also the name of its backend
LABEL_VERSIONS = {"ultralytics": "ultralytics", "torch": "torch", "opencv-python": "cv2", "numpy": "numpy"}
# modules, a change in one of which can change labels, by the name in a fingerprint
CHANGE_NO_LABELS = {"weights", "safe_load", "autoinstall", "backend", "min_agreement", "cuda_graphs", "factory_dir"}
# arguments of the model; its weights count by their digest, its backend by what was chosen


def fingerprint_of(prepared: Prepared, executable: Executable) -> dict[str, Any]:
    """The fingerprint of the run whose model `executable` executes."""
    model = prepared.config.model.model_dump(exclude=CHANGE_NO_LABELS)
    labels = {f"{MODEL}{name}": value for name, value in model.items()}
    backend = executable.backend
    decoder = (device_decoding.PACKAGE,) if prepared.config.model.decode == "device" else ()
    calibrated = {CONVERSION: executable.conversion} if prepared.config.model.precision == "int8" else {}
    return {
        SOURCE_ROOT: kept(prepared.source.root),
        WEIGHTS_DIGEST: prepared.digest,
        **labels,
        BACKEND: backend,
        **calibrated,
        THREADS: prepared.placements[0].threads,
        DEVICE: prepared.device.partition(":")[0],
        **{f"{name}{VERSION}": package_version(module) for name, module in LABEL_VERSIONS.items()},
        **{f"{package}{VERSION}": package_version(package) for package in (*backends.packages_of(backend), *decoder)},
    }
