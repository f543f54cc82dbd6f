"""Which trial may win."""

import pytest

from farm.config.loading import validate
from farm.tune.contest import unless_it_moves_labels
from farm.tune.trials import Trial


@pytest.mark.parametrize(
    ("backend", "of_torch", "agreement", "rate"),
    [
        ("auto", None, 0.99, 0.0),
        ("auto", None, 0.996, 9.0),
        ("auto", 0.9, 0.9, 9.0),
        ("auto", 0.9, 0.89, 0.0),
        ("openvino", None, 0.5, 9.0),
    ],
)
def test_a_backend_is_measured_against_torch_with_the_same_decoding(backend, of_torch, agreement, rate):
    def trial(name, agreement):
        return Trial(name, "fp32", 1, 1, 1, 1, 9.0, 0, agreement)

    values = validate({"source": "x", "model": {"weights": "m.pt", "backend": backend}, "output": "y"})
    assert unless_it_moves_labels(trial("openvino", agreement), [trial("torch", of_torch)], values).images_per_s == rate
    assert unless_it_moves_labels(trial("torch", of_torch), [], values).images_per_s == 9.0
