"""What tests of a model on its device share: raw outputs, and one thread of torch."""

import pytest
import torch

from tests.support.recorded_outputs import record, record_live

PHOTOGRAPHS = 24


@pytest.fixture(scope="module")
def one_thread():
    """torch's threads wait for one another while other tests run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
