"""The benchmarks can be asked for help and answer for themselves where they cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peer_exports
from benchmarks.__main__ import ALL, ARGUMENTS, command
from benchmarks.forward import STAGES, Round, goals, row
from benchmarks.peers import steady_rate
from tests.support.harness import ROOT

PARTS = ("record", "live_weights", "peer_exports")  # of others
NAMES = sorted(path.stem for path in (Path(ROOT) / "benchmarks").glob("*.py") if path.stem[0] != "_")


def run(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", [*(name for name in NAMES if name not in PARTS), "gpu"])
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


def test_images_of_an_export_in_int8_lie_where_ultralytics_may_write(coco_images, tmp_path):
    from ultralytics.data.utils import check_det_dataset

    described = peer_exports._dataset(coco_images.parent, tmp_path)
    folder = Path(check_det_dataset(str(described))["val"])
    assert folder.resolve() == (tmp_path / "images").resolve()
    assert len(list(folder.glob("*.jpg"))) == len(list(coco_images.glob("*.jpg")))


def test_all_of_them_are_run_as_the_readme_has_them():
    assert set(ARGUMENTS) <= set(ALL) <= set(NAMES)
    assert "benchmarks.peers --rounds 3 --repeat 4" in (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    assert command("peers")[2:] == ["benchmarks.peers", "--repeat", "4", "--save"]


def test_scaling_says_what_each_count_of_workers_does():
    done = run("benchmarks.scaling", "--workers", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    rates = {row[1].strip(): float(row[2]) for row in rows if row[2].strip().replace(".", "").isdigit()}
    assert rates.keys() == {"2", "in turn", "overlapping"}
    assert all(rate > 0 for rate in rates.values())
