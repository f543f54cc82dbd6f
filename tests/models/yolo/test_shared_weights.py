"""Weights once: the same numbers to the bit, one file for all, a fraction of the memory; plain loading where it fails."""

import fcntl
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError, WeightsChangedError
from farm.models import cache as kept
from farm.models import load_model
from farm.models.cache import Entry
from farm.models.cache_eviction import tidy
from farm.models.yolo import shared_weights
from tests.support.harness import ROOT

TASKS = ["yolo11n", "yolo26n", "yolov10n", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb", "yolo11n-cls", "yolov8n-p6"]
MEASURE = """
import sys, psutil
from farm.config.sections import ModelConfig
from farm.models import load_model
model = load_model(ModelConfig(weights=sys.argv[1], imgsz=64), "cpu", 1)
print("loaded", flush=True)
sys.stdin.readline()
print(psutil.Process().memory_full_info().uss, flush=True)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "ROOT", str(tmp_path))
    return tmp_path / "mapped"


def random_weights(name, folder):
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    path = folder / f"{name}.pt"
    yolo = YOLO(f"{name}.yaml", verbose=False)
    model = yolo.model.half().eval().requires_grad_(False)
    torch.save({"model": model, "train_args": {"imgsz": 64, "task": yolo.task}}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights("yolo11n", tmp_path_factory.mktemp("weights"))


def load(weights, **arguments):
    return load_model(ModelConfig(weights=str(weights), imgsz=64, conf=0.00001, **arguments), "cpu", 1)


def columns(model):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    prepared = model.prepare(image, image.shape[:2])
    return {name: column.to_pylist() for name, column in model.encode(model.predict([prepared], [(48, 64)])).items()}


def raw(model):
    """All that the network itself gives for one picture, as bytes."""
    import torch

    picture = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return [tensor.numpy().tobytes() for tensor in tensors(model._predictor.model(picture))]


def tensors(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [found for each in value for found in tensors(each)] if isinstance(value, (list, tuple)) else [value]


def is_mapped(model):
    """Do all of its weights lie in a file's pages?"""
    parameters = list(model._predictor.model.backend.model.parameters())
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/mapped/" in line and ".pt" in line:
            ranges.append([int(end, 16) for end in line.split()[0].split("-")])
    return all(any(low <= p.data_ptr() < high for low, high in ranges) for p in parameters)


@pytest.mark.parametrize("name", TASKS)
def test_mapped_models_give_the_same_bits(name, cache, tmp_path, monkeypatch):
    weights = random_weights(name, tmp_path)
    first, again = load(weights), load(weights)
    assert is_mapped(first) and is_mapped(again)
    with monkeypatch.context() as patched:
        patched.setattr(shared_weights, "load_once", lambda weights, safe, make, digest: make(weights))
        plain = load(weights)
    assert not is_mapped(plain)
    assert columns(first) == columns(again) == columns(plain)
    assert raw(first) == raw(again) == raw(plain)
    assert dict(again.names) == dict(plain.names) and again.task == plain.task
    assert again.reduced_side == plain.reduced_side and again.channels == plain.channels


def test_a_damaged_file_is_made_again(weights, cache):
    expected = columns(load(weights))
    (file,) = cache.glob("*/*.pt")
    for damage in (
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:90000] + b"x" + data[90001:],
    ):
        data = file.read_bytes()
        other = file.with_name("other")  # who has mapped the file keeps what it was
        other.write_bytes(damage(data))
        other.replace(file)
        model = load(weights)
        assert columns(model) == expected and is_mapped(model)
        assert file.read_bytes() == data or len(list(cache.glob("*/*.pt"))) == 1


def test_a_lost_file_is_made_again_and_an_unfinished_one_removed(weights, cache):
    load(weights)
    (file,) = cache.glob("*/*.pt")
    file.unlink()
    left = file.with_name(".making-killed")
    left.mkdir()
    assert is_mapped(load(weights))
    assert not left.exists() and len(list(cache.glob("*/*.pt"))) == 1


def test_where_nothing_can_be_kept_weights_are_loaded_plainly(weights, cache, monkeypatch):
    cache.write_text("in the way")
    expected = columns(load(weights))
    cache.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(shared_weights.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0, total=1))
        assert columns(load(weights)) == expected
    with monkeypatch.context() as patched:
        patched.setattr(kept.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        model = load(weights)
        assert columns(model) == expected and not is_mapped(model)
    assert not list(cache.glob("*/*.pt"))
    assert is_mapped(load(weights))


def test_a_model_that_cannot_be_kept_is_tried_once(weights, cache, monkeypatch):
    tried = []

    def refuse(model):
        tried.append(model)
        raise TypeError("forward of model.0 is odd")

    monkeypatch.setattr(shared_weights, "_take_forwards", refuse)
    assert columns(load(weights)) == columns(load(weights))
    assert len(tried) == 1 and not list(cache.glob("*/*.pt"))


def test_who_waits_too_long_loads_its_own(weights, cache, monkeypatch):
    load(weights)
    (file,) = cache.glob("*/*.pt")
    file.unlink()
    monkeypatch.setattr(shared_weights, "LOCK_S", 0.2)
    with Entry(file.parent).alone(0):
        assert not is_mapped(load(weights))


def test_a_file_that_changes_while_a_worker_waits_is_not_kept_under_the_old_digest(weights, cache, tmp_path):
    best = tmp_path / "best.pt"
    best.write_bytes(weights.read_bytes())
    load(best)
    (folder,) = cache.iterdir()
    shutil.rmtree(folder)
    folder.mkdir()
    with open(folder / "lock", "w") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        loading = pool.submit(load, best)
        time.sleep(1)  # it waits for the lock, and has its digest
        best.write_bytes(random_weights("yolov8n", tmp_path).read_bytes())
        fcntl.flock(held, fcntl.LOCK_UN)
        with pytest.raises(WeightsChangedError, match=r"best\.pt changed"):
            loading.result(timeout=100)
    assert not list(folder.glob("*.pt"))


def test_other_weights_of_the_same_name_are_other_weights(weights, cache, tmp_path):
    load(weights)
    same_name = random_weights("yolov8n", tmp_path).rename(tmp_path / weights.name)
    load(same_name)
    assert len(list(cache.glob("*/*.pt"))) == 2


def test_what_nobody_has_used_for_long_is_removed(weights, cache, tmp_path):
    model = load(weights)
    (old,) = cache.glob("*/*.pt")
    for path in (*old.parent.iterdir(), old.parent):
        os.utime(path, (0, 0))
    tidy([cache])
    assert old.exists(), "it is in use"
    del model
    gc.collect()
    tidy([cache])
    assert not old.exists()


def test_weights_that_do_not_load_are_named(cache, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.pt is no checkpoint"):
        load(broken)


def own_memory(weights, home, count=2):
    """USS of processes that have the model loaded, all at once."""
    environ = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, str(weights)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        assert [process.stdout.readline() for process in processes] == ["loaded\n"] * count
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="memory is measured on Linux")
def test_a_further_worker_costs_less_than_a_quarter_of_loading_anew(tmp_path):
    """Two processes that start at once, with an x-sized model, beside two that cannot share."""
    large, small = random_weights("yolo11x", tmp_path), random_weights("yolo11n", tmp_path)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    shared.mkdir()
    (alone / ".cache" / "farm").mkdir(parents=True)
    (alone / ".cache" / "farm" / "mapped").touch()
    own_memory(large, shared)  # made, by one of two that want it at the same time
    assert len(list(shared.glob(".cache/farm/mapped/*/*.pt"))) == 1
    base = min(own_memory(small, alone))  # the interpreter, torch and all that farm's fork server shares
    once, anew = max(own_memory(large, shared)) - base, min(own_memory(large, alone)) - base
    assert anew > 200 << 20
    assert once < anew / 4
