"""What runs, in which order, and for how long at most."""

from pathlib import Path

from benchmarks import record
from benchmarks.gpu.inputs import FULL, Inputs, links
from benchmarks.gpu.settings import Setting, networks
from benchmarks.gpu.steps import STEPS, in_smoke, units

CHOICES = {
    "precision": ["fp16", "fp32"],
    "processes": [2, 1],
    "batch": [32, 64],
    "backend": ["torch"],
    "graphs": ["auto"],
}


def inputs(device):
    return Inputs(["a.jpg"], ["a.jpg"], "m.pt", [device], "/tmp", FULL)


def test_the_first_choice_runs_in_one_step_and_the_others_in_another():
    given = list(units(inputs("cuda:0"), CHOICES, ["smoke", "farm", "decode", "settings"]))
    assert [unit.step for unit in given] == ["smoke", "farm", "decode", *["farm"] * 3]
    first = given[1].args[1]
    assert first == Setting() and first not in [unit.args[1] for unit in given[3:]]


def test_every_step_has_something_to_run_and_on_a_cpu_what_needs_a_device_is_left_out():
    assert {unit.step for unit in units(inputs("cuda:0"), CHOICES, list(STEPS))} == {
        "smoke", "farm", "predict", "decode", "network", "device-decode", "copies", "kill",
    }  # fmt: skip
    on_cpu = [unit.step for unit in units(inputs("cpu"), CHOICES, list(STEPS))]
    assert "device-decode" not in on_cpu and "copies" not in on_cpu


def test_the_smoke_run_has_each_way_with_graphs_in_batches_and_without_image_by_image():
    ways = in_smoke(Setting(), list(networks({"backend": ["torch"], "precision": ["fp16", "fp32"]})))
    assert sorted((way.precision, way.graphs, way.batch) for way in ways) == [
        ("fp16", "auto", 32), ("fp16", "off", 1), ("fp16", "on", 32), ("fp32", "off", 1), ("fp32", "on", 32),
    ]  # fmt: skip


def test_photographs_have_many_names_the_first_in_their_order(tmp_path):
    photographs = [str(tmp_path / name) for name in ("a.jpg", "b.jpeg")]
    for path in photographs:
        Path(path).write_text(path)
    listed = links(photographs, 5, tmp_path / "links")
    assert [Path(path).read_text() for path in listed] == [photographs[n % 2] for n in range(5)]
    assert sorted(listed) == listed and len(set(listed)) == 5


def test_results_are_kept_in_the_file_of_the_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for rate in ("1", "2"):
        record.report(
            "GPU",
            ["way", "images/s"],
            [["farm", rate]],
            ["a note"],
            True,
            record.Place("NVIDIA H100 80GB HBM3", "a day, a machine"),
        )
    kept = (tmp_path / "nvidia-h100-80gb-hbm3.md").read_text()
    assert kept.count("## GPU") == 1 and "| farm | 2 " in kept
    assert "\na day, a machine\n" in kept
