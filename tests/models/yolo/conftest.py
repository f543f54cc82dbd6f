"""Raw outputs that the tests of postprocessing share."""

import pytest
import torch

from tests.support.recorded_outputs import record, record_live

PHOTOGRAPHS = 24


@pytest.fixture(scope="session")
def photographs(coco_images):
    return sorted(coco_images.glob("*.jpg"))[:PHOTOGRAPHS]


@pytest.fixture(scope="session")
def coco(coco_weights, photographs):
    """What real weights put out."""
    torch.set_num_threads(1)
    recorded = record(coco_weights, photographs)
    assert len(set(recorded.originals)) > 1
    return recorded


@pytest.fixture(scope="session")
def live(photographs, tmp_path_factory):
    """What weights of a name in LIVE put out, made when it is asked for."""
    made = {}

    def make(name):
        if name not in made:
            torch.set_num_threads(1)
            made[name] = record_live(name, tmp_path_factory.mktemp("live"), photographs)
        return made[name]

    return make
