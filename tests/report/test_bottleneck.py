"""Where the time went, in a sentence that says what to change."""

import pytest

from farm.report.bottleneck import bottleneck


@pytest.mark.parametrize(
    ("stages", "cpu", "backend", "precision", "words"),
    [
        ({"forward": 95, "preprocess": 2}, True, "torch", "fp32", ("forward-bound", "98%", "model.backend=openvino")),
        ({"forward": 95}, True, "openvino", "fp32", ("forward-bound", "model.precision=int8")),
        ({"forward": 95}, True, "openvino", "int8", ("forward-bound", "model.imgsz")),
        ({"forward": 95}, False, "torch", "fp32", ("forward-bound", "model.precision=fp16")),
        (
            {"forward": 40, "wait": 60, "decode": 80},
            False,
            "torch",
            "fp16",
            ("decode-bound", "60%", "workers.decoders"),
        ),
        ({"forward": 40, "wait": 60, "read": 70, "decode": 10}, True, "torch", "fp32", ("read-bound", "disk")),
        ({"forward": 10, "send": 90}, True, "torch", "fp32", ("commit-bound", "disk")),
        ({"forward": 10, "idle": 90}, True, "torch", "fp32", ("list-bound", "listed")),
        ({"forward": 30, "postprocess": 40, "encode": 20}, False, "torch", "fp16", ("Python-bound", "workers.count")),
    ],
)
def test_sentences(stages, cpu, backend, precision, words):
    said = bottleneck(stages, 2, 4, cpu, backend, precision)
    assert all(word in said for word in words), said


def test_nothing_is_said_of_a_short_run():
    assert bottleneck({"forward": 1.0}, 2, 1, True, "torch", "fp32") == ""
