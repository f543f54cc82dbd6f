"""Weights that do not load say so, and weights that hold code are refused before it runs: with real runs."""

import os
import subprocess
import sys

import pytest

import farm


def label(weights, source, output):
    return farm.run({
        "source": str(source), "model": {"weights": str(weights)}, "output": {"dir": str(output)},
        "workers": {"count": 2, "batch": 1, "devices": "cpu"},
    })  # fmt: skip


def test_weights_that_do_not_load_say_so(coco_images, tmp_path):
    for name, content in (
        ("page.pt", b"<html>not found</html>"),
        ("empty.pt", b""),
        ("torn.pt", b"PK\x03\x04" + b"x" * 500),
    ):
        weights = tmp_path / name
        weights.write_bytes(content)
        with pytest.raises(farm.FarmError, match=name) as raised:
            label(weights, coco_images, tmp_path / f"run-{name}")
        assert raised.value.exit_code == 2
        assert "\n" not in str(raised.value)


def test_weights_that_hold_code_are_refused_and_the_code_does_not_run(coco_images, tmp_path):
    mark = tmp_path / "executed"
    build = f"""
import os, torch
class Evil:
    def __reduce__(self):
        return os.system, ("touch {mark}",)
torch.save({{"model": Evil(), "train_args": {{}}}}, {str(tmp_path / "evil.pt")!r})
"""
    subprocess.run([sys.executable, "-c", build], check=True, timeout=280)
    with pytest.raises(farm.FarmError, match="safe_load"):
        label(tmp_path / "evil.pt", coco_images, tmp_path / "run")
    assert not mark.exists()


def test_a_model_yaml_that_holds_code_is_refused(coco_images, tmp_path):
    mark = tmp_path / "executed"
    code = f"__import__('os').system('touch {mark}')"
    (tmp_path / "evil.yaml").write_text(
        f'nc: 2\nactivation: "{code}"\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n'
    )
    with pytest.raises(farm.FarmError):
        label(tmp_path / "evil.yaml", coco_images, tmp_path / "run")
    assert not mark.exists()
    assert os.path.exists(tmp_path / "evil.yaml")
