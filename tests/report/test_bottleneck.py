"""Where the time went, in a sentence that says what to change."""

from dataclasses import replace

import pytest

from farm.report.bottleneck import Crew, bottleneck

CPU = Crew(workers=2, decoders=1, devices=0, labelling_s=50)
GPU = Crew(workers=2, decoders=8, devices=1, labelling_s=50)
GPUS = Crew(workers=4, decoders=4, devices=2, labelling_s=50)
ALONE = Crew(workers=1, decoders=8, devices=1, labelling_s=50)
TOLD = Crew(workers=2, decoders=8, devices=1, labelling_s=50, devices_busy=0.62)


@pytest.mark.parametrize(
    ("stages", "crew", "words"),
    [
        (
            {"forward": 95, "preprocess": 2},
            CPU,
            ("forward-bound", "98%", "on torch; model.x=y, fewer pixels", "GPU", "for a new output"),
        ),
        ({"forward": 95, "device": 49}, GPU, ("forward-bound", "GPU at most 98% busy", "model.x=y")),
        ({"forward": 95, "device": 49}, ALONE, ("forward-bound", "GPU 98% busy")),
        ({"forward": 95, "device": 95}, TOLD, ("forward-bound", "GPU 62% busy")),
        (
            {"forward": 40, "wait": 60, "decode": 690, "prepare": 10, "device": 15.5},
            GPU,
            ("decode-bound", "60%", "14.0 of 16 decoding threads at work", "GPU at most 31% busy", "workers.decoders"),
        ),
        ({"forward": 40, "wait": 60, "decode": 80, "device": 50}, GPUS, ("GPUs at most 50% busy",)),
        ({"forward": 40, "wait": 60, "decode": 95}, CPU, ("1.9 of 2 decoding threads", "for a new output")),
        ({"forward": 40, "wait": 60, "read": 70, "decode": 10}, CPU, ("read-bound", "disk")),
        ({"forward": 10, "send": 90}, CPU, ("commit-bound", "disk")),
        ({"forward": 10, "idle": 90}, CPU, ("list-bound", "listed")),
        ({"forward": 10, "idle": 90, "caller": 40}, CPU, ("caller-bound", "on_batch takes 80%")),
        ({"forward": 10, "send": 90, "caller": 40}, CPU, ("caller-bound", "on_batch takes 80%")),
        ({"forward": 90, "idle": 10, "caller": 40}, CPU, ("forward-bound",)),
        ({"forward": 30, "postprocess": 40, "encode": 20}, GPU, ("Python-bound", "workers.count")),
    ],
)
def test_sentences(stages, crew, words):
    said = bottleneck(stages, crew, "torch", "model.x=y")
    assert all(word in said for word in words), said


def test_a_cpu_has_no_gpu_to_speak_of():
    assert "GPU " not in bottleneck({"forward": 40, "wait": 60, "decode": 80}, CPU, "torch", "")


def test_times_of_processes_that_share_a_device_are_not_added_up():
    """Each one's batches take longer by those of the others: together more seconds than there were."""
    said = bottleneck({"forward": 40, "wait": 60, "decode": 80, "device": 150}, GPUS, "torch", "")
    assert "GPU" not in said.partition(";")[0]


def test_nothing_is_said_of_a_short_run():
    assert bottleneck({"forward": 1.0}, CPU, "torch", "") == ""


def test_decoding_on_the_device_is_named_where_there_is_one_that_does_not_do_it_yet():
    stages = {"forward": 40, "wait": 60, "decode": 80}
    named = [
        "model.decode=device" in bottleneck(stages, crew, "torch", "")
        for crew in (CPU, GPU, replace(GPU, decode="device"), replace(GPU, decode="reduced"))
    ]
    assert named == [False, True, False, False]
