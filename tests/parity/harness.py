"""What parity tests share: both command lines over the same weights and images, and their label files side by side.

    yolo predict model=W source=S save_txt=True [save_conf=True] device=cpu project=P name=N
    farm run model=W source=S output=O [output.save_conf=true]

Nothing else is set, unless a test sets the same for both. Each program has a process of its own, in which its command
lines run one after the other; the two work at the same time. commands.py says how threads are kept equal. Another test
that wants a reference takes the fixture `both` of conftest.py, or a CommandLine of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT

FARM_CORES = 2  # what farm's process is pinned to: a few images are not worth more workers
CLOSE_S = 60  # for a process to end after its last command
SAID_CHARS = 3000  # of a program that failed
SHOWN_FILES, SHOWN_CHARS = 5, 120  # of labels that differ
UNSET = ("ULTRALYTICS_SAFE_LOAD", "YOLO_VERBOSE")  # the tests set them, users do not

Labels = dict[str, bytes]  # content by path below the folder


@dataclass(frozen=True)
class Finished:
    """A command line that has ended: its exit code, and what it printed."""

    code: int
    said: str


class CommandLine:
    """One program's process, `yolo` or `farm`. Its home is `folder`. Commands wait for each other."""

    def __init__(self, program: str, folder: Path, cores: set[int] | None = None) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "said.txt"
        inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
        environment = {**inherited, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.parity.commands", program],
                cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        if cores is not None:
            os.sched_setaffinity(self._process.pid, cores)
        self._queue = ThreadPoolExecutor(1)

    def begin(self, *words: str) -> Future[Finished]:
        return self._queue.submit(self._execute, words)

    def run(self, *words: str) -> Finished:
        return self.begin(*words).result()

    def close(self) -> None:
        self._queue.shutdown(cancel_futures=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=CLOSE_S)

    def _execute(self, words: tuple[str, ...]) -> Finished:
        before = self._log.stat().st_size
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        print(json.dumps(words), file=stdin, flush=True)
        answer = stdout.readline()  # nothing where the process has died
        said = self._log.read_bytes()[before:].decode(errors="replace")
        return Finished(int(answer or -1), said)


class BothCommandLines:
    """Ultralytics' and farm's. What Ultralytics has labelled is kept, so that tests may ask for it again."""

    def __init__(self, folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.yolo = CommandLine("yolo", folder / "yolo")
        self.farm = CommandLine("farm", folder / "farm", set(cores[:FARM_CORES]))
        self._predicted, self._labelled = folder / "predicted", folder / "labelled"
        self._references: dict[tuple[str, ...], tuple[Path, Future[Finished]]] = {}
        self._runs = 0

    def close(self) -> None:
        self.yolo.close()
        self.farm.close()

    def same_labels(self, weights: Path | str, source: Path, *arguments: str, save_conf: bool = True) -> Labels:
        """The labels of either, which must be the same to the byte. `arguments` are given to both: "conf=0.5"."""
        predicted = self.predict(weights, source, *arguments, *["save_conf=True"] * save_conf)
        settings = (f"model.{argument}" for argument in arguments)
        ours = self.label(weights, source, *settings, *["output.save_conf=true"] * save_conf)
        theirs = predicted()
        different = differences(ours, theirs)
        assert not different, "\n".join(different)
        return theirs

    def predict(self, weights: Path | str, source: Path, *settings: str) -> Callable[[], Labels]:
        """Begin `yolo predict`. What is returned waits for it, and gives its labels."""
        words = (f"model={weights}", f"source={source}", "save_txt=True", *settings)
        if words not in self._references:
            name = str(len(self._references))
            place = ("device=cpu", f"project={self._predicted}", f"name={name}")
            begun = self.yolo.begin("predict", *words, *place)
            self._references[words] = self._predicted / name / "labels", begun
        labels, begun = self._references[words]

        def wait() -> Labels:
            finished = begun.result()
            assert finished.code == 0, f"yolo predict failed:\n{finished.said[-SAID_CHARS:]}"
            return label_files(labels)

        return wait

    def label(self, weights: Path | str, source: Path, *settings: str) -> Labels:
        """The labels of `farm run`."""
        self._runs += 1
        output = self._labelled / str(self._runs)
        finished = self.farm.run("run", f"source={source}", f"model={weights}", f"output={output}", *settings)
        assert finished.code == 0, f"farm run failed:\n{finished.said[-SAID_CHARS:]}"
        return label_files(output / "labels")


def label_files(folder: Path) -> Labels:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.txt"))}


def differences(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> list[str]:
    """What differs, in words, a line each; nothing where the labels are the same."""
    said = []
    for who, some, others in (("farm", ours, theirs), ("predict", theirs, ours)):
        alone = sorted(set(some) - set(others))
        if alone:
            said.append(f"{who} alone has labels for {len(alone)}: {', '.join(alone[:SHOWN_FILES])}")
    unequal = [name for name in sorted(ours) if name in theirs and ours[name] != theirs[name]]
    return said + [_difference(name, ours[name], theirs[name]) for name in unequal[:SHOWN_FILES]]


def _difference(name: str, ours: bytes, theirs: bytes) -> str:
    mine, other = ours.decode().splitlines(), theirs.decode().splitlines()
    pairs = enumerate(zip(mine, other, strict=False))
    first = next((number for number, (a, b) in pairs if a != b), min(len(mine), len(other)))
    lines = (repr("".join(lines[first : first + 1])[:SHOWN_CHARS]) for lines in (mine, other))
    return f"{name}: {len(mine)} lines by farm, {len(other)} by predict; line {first + 1}: {' and '.join(lines)}"
