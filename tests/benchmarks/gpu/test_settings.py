"""One thing is changed at a time."""

from dataclasses import asdict

from benchmarks.gpu.settings import Setting, networks, settings
from farm.config.sections import ModelConfig

CHOICES = {"precision": ["fp16", "fp32"], "processes": [2, 1, 3], "batch": [32, 64]}


def test_each_choice_is_tried_with_the_rest_of_the_first_ones():
    base = Setting(precision="fp16", processes=2, batch=32)
    tried = list(settings(CHOICES, {}))
    assert tried[0] == base
    assert [set(asdict(each).items()) - set(asdict(base).items()) for each in tried[1:]] == [
        {("precision", "fp32")}, {("processes", 1)}, {("processes", 3)}, {("batch", 64)},
    ]  # fmt: skip


def test_an_engine_is_given_no_batch_that_it_was_not_built_for():
    tried = settings({"backend": ["torch", "tensorrt"], "batch": [64]}, {"tensorrt": 32})
    assert [(each.backend, each.batch) for each in tried] == [("torch", 64), ("tensorrt", 32)]


def test_networks_are_executed_with_graphs_and_without():
    ways = networks({"backend": ["torch", "tensorrt"], "precision": ["fp16"]})
    assert [(each.backend, each.graphs) for each in ways] == [("torch", "on"), ("torch", "off"), ("tensorrt", "auto")]


def test_every_setting_is_a_model_that_farm_takes_and_a_line_of_the_journal():
    for graphs in ("auto", "on", "off"):
        for decode in ("exact", "reduced", "device"):
            setting = Setting(graphs=graphs, decode=decode)
            assert ModelConfig(weights="m.pt", **setting.model).decode == decode
            assert Setting.of({"step": "farm", "images_per_s": 1.0, **asdict(setting)}) == setting
    assert ModelConfig(weights="m.pt", **Setting(graphs="off").model).cuda_graphs is False
    assert "cuda_graphs" not in Setting().model
