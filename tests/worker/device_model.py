"""The fake model with a device that decodes, which is made up: torchcodec's fake decodes with OpenCV.

    model: {factory: "tests.worker.device_model:make", args: {log: /tmp/decoded}}

`log`: a file that gets a line for each image that the device has decoded. A model in a process of its own is given
nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from farm.models.fake import FakeModel
from farm.models.yolo.device_decoder import DeviceDecoder
from tests.models.yolo.fake_torchcodec import FakeTorchcodec


class DeviceModel(FakeModel):
    def __init__(self, torchcodec: FakeTorchcodec | None = None, log: str = "", threads: int = 1, **args: Any) -> None:
        super().__init__(**{"pixels": True, "boxes": 1, **args})
        self.device_decoder = DeviceDecoder((torchcodec or FakeTorchcodec()).make, threads)
        self.on_device: list[tuple[int, int]] = []
        self._log = log

    def prepare(self, image: Any, shape: tuple[int, int]) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return super().prepare(image, shape)
        self.on_device.append(shape)
        if self._log:
            with open(self._log, "a") as log:
                print(*shape, file=log)
        return np.ascontiguousarray(image[:, :1, :1].numpy().transpose(1, 2, 0)[..., ::-1])

    def close(self) -> None:
        self.device_decoder.close()


def make(**args: Any) -> DeviceModel:
    return DeviceModel(**args)
