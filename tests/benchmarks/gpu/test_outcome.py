"""The verdict, the table and the goals, from lines as an H100 might give them."""

from dataclasses import asdict

import pytest

from benchmarks.gpu.outcome import Outcome, agrees
from benchmarks.gpu.settings import Setting
from benchmarks.gpu.smoke import STRICT

SMOKE = {"step": "smoke", "task": "detect", "images": 128, "objects": 700, "near": 0.98, "matched": 0.999}


def farm(rate, matched=None, **setting):
    rows = None if matched is None else {"matched": matched}
    return {"step": "farm", **asdict(Setting(**setting)), "images_per_s": rate, "rows": rows, "agreement": 0.98}


def lines(fastest=3600.0, decode=3900.0):
    return [
        {"step": "machine", "cards": ["NVIDIA H100"], "stamp": "a day", "cpus": 16, "images": "128 photographs"},
        {**SMOKE, "way": f"{STRICT}, graphs off", "alike": 128},
        {**SMOKE, "way": f"{STRICT}, graphs on", "alike": 126},
        {**SMOKE, "task": "pose", "way": "torch fp16, batch 32", "alike": 1, "matched": 0.3},
        {**SMOKE, "way": "torch fp16, batch 32", "alike": 100, "matched": 0.99},
        {"step": "predict", "precision": "fp16", "batch": 32, "images_per_s": 300.0},
        {"step": "predict", "precision": "fp32", "batch": 32, "images_per_s": 250.0},
        farm(fastest, 0.991),
        farm(2900.0, precision="fp32"),
        farm(8100.0, 0.985, decode="device"),
        {"step": "decode", "images_per_s": decode},
        {"step": "network", "backend": "torch", "precision": "fp16", "graphs": "on", "batch": 32,
         "images_per_s": 7300.0, "squares_per_s": 5700.0},
        {"step": "network", "backend": "torch", "precision": "fp32", "graphs": "on", "batch": 32,
         "images_per_s": 3000.0, "squares_per_s": 2500.0},
        {"step": "device-decode", "jpeg": "4:2:0", "images_per_s": 22000.0},
        {"step": "kill", "killed": True, "verify": "whole: 12,000 images = 12,000 labelled + 0 failed, each once"},
        {"step": "copies", "error": "Traceback\nRuntimeError: no"},
    ]  # fmt: skip


def test_the_table_has_every_way_beside_the_best_predict():
    rows = {row[0]: row[1:] for row in Outcome(lines()).table()}
    assert rows["YOLO.predict, fp32, batch 32"] == ["250", "0.83", ""]
    assert rows["farm, torch fp16, 2 × batch 32"] == ["3600", "12.00", "99.1%"]
    assert rows["farm, torch fp32, 2 × batch 32"] == ["2900", "9.67", "98.0%"], "as farm itself compared"
    assert rows["farm, torch fp16, decode device, 2 × batch 32"] == ["8100", "27.00", "98.5%"]
    assert rows["decoding alone, all CPUs"] == ["3900", "13.00", ""]
    assert rows["decoding alone, the device, JPEGs 4:2:0"] == ["22000", "73.33", ""]
    assert rows["the network alone, torch fp16, graphs on, batch 32, the photographs' shapes"][0] == "7300"
    assert rows["the network alone, torch fp16, graphs on, batch 32, 640×640"][0] == "5700"


@pytest.mark.parametrize(
    ("fastest", "decode", "times", "share"),
    [
        (3600.0, 3900.0, "12.0 × the best YOLO.predict (300 images/s); the goal is 10: reached", "0.92 of the smaller limit, decoding on all CPUs (3900 images/s); the goal is 0.9: reached"),
        (2940.0, 9000.0, "9.8 × the best YOLO.predict (300 images/s); the goal is 10: missed", "0.40 of the smaller limit, the network (7300 images/s); the goal is 0.9: missed"),
    ],
)  # fmt: skip
def test_the_goals(fastest, decode, times, share):
    said = Outcome(lines(fastest, decode)).goals()
    assert said[:2] == [times, share]
    assert (
        said[2]
        == f"{fastest:.0f} images/s with exact decoding (torch fp16, 2 × batch 32, 99.1% of the CPU's boxes); the goal, of one H100 with 16 cores, is 4000: missed"
    )
    assert said[3].endswith("98.5% of the CPU's boxes); the goal, of one H100 with 16 cores, is 8000: reached")
    assert said[4].startswith("a worker killed and the run stopped, then continued: whole: 12,000")


def test_where_the_time_of_each_run_went_is_said():
    watched = {"main_thread": 0.47, "worker_cores": 7.5, "gpu_busy": 0.56, "stage_us": {"decode": 1900, "idle": 0}}
    (said,) = Outcome([{**farm(3600.0), **watched, "bottleneck": "decode-bound: add decoders"}]).details()
    assert (
        said
        == "farm, torch fp16, 2 × batch 32: main thread 47% busy; 7.5 cores a worker; GPU 56% busy; µs an image: decode 1900; decode-bound: add decoders"
    )
    assert Outcome([farm(1.0)]).details() == ["farm, torch fp16, 2 × batch 32: nothing is known"]


def test_what_was_not_measured_is_said():
    assert [line.rpartition(": ")[2] for line in Outcome([]).goals()] == ["not measured"] * 4
    assert Outcome([]).table() == []
    assert Outcome([]).verdict() == ["rows were not compared with the CPU's"]
    without_predict = [line for line in lines() if line["step"] != "predict"]
    assert Outcome(without_predict).table()[0][1:] == ["3600", "", "99.1%"]


def test_the_verdict_comes_first_and_names_what_differs():
    assert Outcome(lines()).verdict() == ["rows agree with the CPU's; images alike without TF32: detect 128 of 128"]
    broken = {**SMOKE, "task": "obb", "way": f"{STRICT}, graphs on", "alike": 3, "matched": 0.2, "near": 0.1}
    first, second = Outcome([*lines(), broken]).verdict()
    assert first.startswith("rows DIFFER from the CPU's")
    assert second.startswith("obb, torch fp32 without TF32, graphs on: 3 of 128 images alike, 20.0% of 700 objects")


def test_rows_without_tf32_must_be_the_same_others_must_match():
    assert not agrees({**SMOKE, "way": f"{STRICT}, graphs on", "alike": 100})
    assert agrees({**SMOKE, "way": "torch fp32, batch 32", "alike": 100})
    assert not agrees({**SMOKE, "way": "torch fp32, batch 32", "alike": 100, "matched": 0.98})
    assert agrees({**SMOKE, "way": "torch fp16, batch 32", "alike": 100, "matched": 0.98})
