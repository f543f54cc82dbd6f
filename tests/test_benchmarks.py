"""The benchmarks can be asked for help and answer for themselves where they cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, peer_exports
from benchmarks.__main__ import ALL, ARGUMENTS, command
from benchmarks.forward import STAGES, Round, goals, row
from benchmarks.peers import steady_rate
from tests.support.harness import ROOT

NAMES = sorted(path.stem for path in (Path(ROOT) / "benchmarks").glob("*.py") if path.stem[0] != "_")


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("record", "peer_exports")])
def test_each_says_what_it_measures(name):
    done = run(f"benchmarks.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout


def test_steady_is_the_second_half():
    started_late, ten_a_second = [0.0, 0.1, 5.0, 9.0], [10.0, 10.1, 10.2, 10.3]
    assert steady_rate([*ten_a_second[::-1], *started_late]) == pytest.approx(4 / (10.3 - 9.0))
    assert steady_rate([0.0, 0.5]) == 2.0


def test_a_row_of_forward_says_what_stands_in_the_way():
    rounds = [Round(18.0, 20.0, {"forward": 12.0, "decode": 0.4, "idle": 9.0}, images=100)] * 3
    cells = dict(
        zip(("farm", "alone", "share", "alone_ms", *STAGES), row(("openvino", "int8"), rounds, 2)[1:], strict=True)
    )
    assert (cells["farm"], cells["alone"], cells["share"], cells["alone_ms"]) == ("18.0", "20.0", "0.90", "100.0")
    assert (cells["forward"], cells["decode"], cells["send"]) == ("120.0", "4.0", "0.0")


def test_the_goals_of_forward_and_where_the_rest_goes():
    rounds = [Round(60.0, 75.0, {"forward": 12.0, "decode": 0.3, "encode": 0.1, "idle": 9.0}, images=100)] * 3
    reached, told = "0.80 of the network alone", "6.7 ms an image beside the network, of which its stages take 4.0"
    assert goals(("openvino", "int8"), rounds, 2) == f"openvino int8: {reached}; the goal is 0.85: missed; {told}"
    assert goals(("openvino", "bf16"), rounds, 2) == f"openvino bf16: {reached}; {told}"


def test_the_goals_beside_exports_are_measured_by_the_fastest_of_each_precision():
    steady = {
        "farm, onnxruntime": 33.0, "farm, openvino": 30.0, "farm, int8 (openvino)": 60.0,
        "YOLO.predict, openvino": 30.0, "YOLO.predict, openvino dynamic": 28.0,
        "YOLO.predict, openvino int8": 40.0, "YOLO.predict, farm's openvino int8": 35.0,
    }  # fmt: skip
    assert peer_exports.goals(steady) == [
        "fp32: farm, onnxruntime is 1.10 × the fastest export in one process (YOLO.predict, openvino); "
        "the goal is 1.15: missed",
        "int8: farm, int8 (openvino) is 1.50 × the fastest export in one process (YOLO.predict, openvino int8); "
        "the goal is 1.7: missed",
    ]
    assert peer_exports.goals({"farm, openvino": 30.0}) == []


@pytest.mark.timeout(180)
def test_an_export_is_what_a_user_would_make(coco_images, coco_weights, tmp_path):
    """And is told to compute in fp32 where it is called so."""
    pytest.importorskip("openvino")
    made = peer_exports.made(peer_exports.Export("fp32"), str(coco_weights), coco_images.parent, {}, tmp_path / "one")
    images = sorted(map(str, coco_images.glob("*.jpg")))[:4]
    networks = []
    with peer_exports.computing_in("fp32"):
        from ultralytics import YOLO

        yolo = YOLO(made)
        assert sum(len(result.boxes) for result in yolo.predict(images, verbose=False, device="cpu")) > 0
        networks.append(yolo.predictor.model.backend.ov_compiled_model)
    assert str(networks[0].get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
    assert not networks[0].input().get_partial_shape().is_dynamic


FP32, FP16 = gpu.Network("torch", "fp32"), gpu.Network("torch", "fp16")
GRAPHS, ENGINE = gpu.Network("torch", "fp16", graphs=True), gpu.Network("tensorrt", "fp16")


def measured(fastest, decode):
    """What a GPU might give: four ways to execute the network."""
    rows = [gpu.Row(FP32, 2, 32, 900.0), gpu.Row(FP16, 2, 32, fastest, 0.995), gpu.Row(GRAPHS, 1, 32, 1500.0, 0.995)]
    forward = {FP32: (1200.0, 900.0), FP16: (2500.0, 1900.0), GRAPHS: (2600.0, 2000.0), ENGINE: (9000.0, 7000.0)}
    return gpu.Measured(
        decode, {"YOLO.predict, fp32, batch 8": 150.0, "YOLO.predict, fp16, batch 32": 200.0}, rows, forward
    )


def test_the_table_of_a_gpu_has_every_way_beside_the_best_predict():
    lines = {line[0]: line[1:] for line in gpu.table(measured(2400.0, 5000.0))}
    assert lines["YOLO.predict, fp32, batch 8"] == ["150", "0.75", ""]
    assert lines["farm, torch fp32, 2 workers a device, batch 32"] == ["900", "4.50", ""]
    assert lines["farm, torch fp16, 2 workers a device, batch 32"] == ["2400", "12.00", "99.5%"]
    assert lines["farm, torch fp16 graphs, 1 workers a device, batch 32"] == ["1500", "7.50", "99.5%"]
    assert lines["decoding alone, all CPUs"] == ["5000", "25.00", ""]
    assert lines["the network alone, torch fp16 graphs, the photographs' shapes"] == ["2600", "13.00", ""]
    assert lines["the network alone, torch fp16 graphs, 640×640"] == ["2000", "10.00", ""]


@pytest.mark.parametrize(
    ("fastest", "decode", "times", "share"),
    [
        (2400.0, 5000.0, "12.0 × the best YOLO.predict; the goal is 10: reached", "0.92 of the smaller limit, the network (2600 images/s); the goal is 0.9: reached"),
        (1900.0, 2200.0, "9.5 × the best YOLO.predict; the goal is 10: missed", "0.86 of the smaller limit, decoding (2200 images/s); the goal is 0.9: missed"),
    ],
)  # fmt: skip
def test_the_goals_of_a_gpu(fastest, decode, times, share):
    best = f"best: farm, torch fp16, 2 workers a device, batch 32: {fastest:.0f} images/s"
    assert gpu.goals(measured(fastest, decode)) == [best, times, share]


def test_an_engine_is_given_no_batch_that_it_was_not_built_for():
    tried = list(gpu.settings([FP16, ENGINE], [1, 2], [32, 64]))
    assert tried == [(FP16, 1, 32), (FP16, 1, 64), (FP16, 2, 32), (FP16, 2, 64), (ENGINE, 1, 32), (ENGINE, 2, 32)]


@pytest.mark.timeout(120)
def test_the_limit_of_the_network_is_of_rectangles_and_of_squares(monkeypatch, coco_images, coco_weights):
    """With a pass that takes a microsecond a pixel, on the CPU."""
    monkeypatch.setattr(gpu, "_pass_s", lambda yolo, shape, batch, device: batch * shape[0] * shape[1] / 1e6)
    images = sorted(map(str, coco_images.glob("*.jpg")))[:4]
    shapes, squares = gpu.forward_rates(images, str(coco_weights), FP32, 2, "cpu")
    assert squares == pytest.approx(1e6 / 640**2)
    assert shapes > squares, "rectangles have fewer pixels"


def test_all_of_them_are_run_as_the_readme_has_them():
    assert set(ARGUMENTS) <= set(ALL) <= set(NAMES)
    assert "benchmarks.peers --rounds 3 --repeat 4" in (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    assert command("peers")[2:] == ["benchmarks.peers", "--repeat", "4", "--save"]


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("benchmarks.gpu")
    assert done.returncode == 1
    assert done.stderr.strip() == "no CUDA device here (nvidia-smi shows none): nothing to measure"


def test_scaling_says_what_each_count_of_workers_does():
    done = run("benchmarks.scaling", "--workers", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    rates = {row[1].strip(): float(row[2]) for row in rows if row[2].strip().replace(".", "").isdigit()}
    assert rates.keys() == {"2", "in turn", "overlapping"}
    assert all(rate > 0 for rate in rates.values())
