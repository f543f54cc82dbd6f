"""From the lines of a journal: do rows agree, the table, and what of the goals is reached. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.gpu.settings import Setting
from benchmarks.gpu.smoke import STRICT

TIMES_PREDICT = 10.0  # the goals
SHARE_OF_LIMIT = 0.9
EXACT_PER_S, DEVICE_PER_S = 4000, 8000  # images of one H100 with 16 cores
ALIKE = 0.95  # share of images without TF32: in others a score lies at the threshold, to the last digit
MATCHED = {"fp32": 0.99, "fp16": 0.97}  # share of objects
HEADER = ["way", "images/s", "÷ best YOLO.predict", "boxes of the CPU's fp32"]
Line = dict[str, Any]


class Outcome:
    """What the lines say together. A step that failed, or was left out, leaves out what it would have said."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.failed = [line for line in lines if "error" in line]
        good = [line for line in lines if "error" not in line]
        of: Callable[[str], list[Line]] = lambda step: [line for line in good if line["step"] == step]  # noqa: E731
        self.smoke, self.predict, self.farm, self.network = map(of, ("smoke", "predict", "farm", "network"))
        self.decode, self.device_decode, self.kill = map(of, ("decode", "device-decode", "kill"))
        self.machine = next(iter(of("machine")), None)

    @property
    def best_predict(self) -> float | None:
        return _fastest(self.predict)

    def table(self) -> list[list[str]]:
        """Rows of HEADER."""
        best = self.best_predict
        return [
            [name, f"{rate:.0f}", f"{rate / best:.2f}" if best else "", "" if share is None else f"{share:.1%}"]
            for name, rate, share in self._rates()
        ]

    def _rates(self) -> Iterator[tuple[str, float, float | None]]:
        for line in self.predict:
            yield f"YOLO.predict, {line['precision']}, batch {line['batch']}", line["images_per_s"], None
        for line in self.farm:
            rows = line.get("rows")
            share = rows["matched"] if rows else line.get("agreement")
            yield f"farm, {Setting.of(line)}", line["images_per_s"], share
        for line in self.decode:
            yield "decoding alone, all CPUs", line["images_per_s"], None
        for line in self.device_decode:
            yield f"decoding alone, the device, JPEGs {line['jpeg']}", line["images_per_s"], None
        for line in self.network:
            graphs = "" if line["graphs"] == "auto" else f", graphs {line['graphs']}"
            name = f"the network alone, {line['backend']} {line['precision']}{graphs}, batch {line['batch']}"
            yield f"{name}, the photographs' shapes", line["images_per_s"], None
            yield f"{name}, 640×640", line["squares_per_s"], None

    def verdict(self) -> list[str]:
        """Whether rows agree, a line of all tasks, and one of each way that does not."""
        if not self.smoke:
            return ["rows were not compared with the CPU's"]
        strict = [line for line in self.smoke if line["way"] == f"{STRICT}, graphs off"]
        tasks = ", ".join(f"{line['task']} {line['alike']} of {line['images']}" for line in strict)
        bad = [line for line in self.smoke if not agrees(line)]
        verdict = "rows agree with the CPU's" if not bad else "rows DIFFER from the CPU's"
        return [
            f"{verdict}; images alike without TF32: {tasks or 'not measured'}",
            *(
                f"{line['task']}, {line['way']}: {line['alike']} of {line['images']} images alike, "
                f"{line['matched']:.1%} of {line['objects']} objects matched, {line['near']:.1%} within 0.1 px"
                for line in bad
            ),
        ]

    def details(self) -> list[str]:
        """Where the time of each run of farm went."""
        return [f"farm, {Setting.of(line)}: {_busy(line)}" for line in self.farm]

    def goals(self) -> list[str]:
        """Each goal, and whether it is reached."""
        exact = _best(line for line in self.farm if line["decode"] == "exact")
        device = _best(line for line in self.farm if line["decode"] == "device")
        return [
            self._times_predict(exact),
            self._share_of_limit(exact, self.decode, "decoding on all CPUs"),
            _rate(exact, EXACT_PER_S, "with exact decoding"),
            _rate(device, DEVICE_PER_S, "with decoding on the device"),
            *(_survived(line) for line in self.kill),
        ]

    def _times_predict(self, best: Line | None) -> str:
        if best is None or not self.best_predict:
            return f"{TIMES_PREDICT:g} × the best YOLO.predict: not measured"
        times = best["images_per_s"] / self.best_predict
        said = f"{times:.1f} × the best YOLO.predict ({self.best_predict:.0f} images/s); the goal is {TIMES_PREDICT:g}"
        return f"{said}: {_reached(times >= TIMES_PREDICT)}"

    def _share_of_limit(self, best: Line | None, decoding: Sequence[Line], name: str) -> str:
        """Of the smaller of decoding and the network of the row's backend and precision, with graphs or without."""
        alike = [
            line
            for line in self.network
            if best and (line["backend"], line["precision"]) == (best["backend"], best["precision"])
        ]
        network, decode = _fastest(alike), _fastest(decoding)
        if best is None or not network or not decode:
            return f"{SHARE_OF_LIMIT:g} of the smaller limit: not measured"
        limit, of = min((decode, name), (network, "the network"))
        share = best["images_per_s"] / limit
        said = f"{share:.2f} of the smaller limit, {of} ({limit:.0f} images/s); the goal is {SHARE_OF_LIMIT:g}"
        return f"{said}: {_reached(share >= SHARE_OF_LIMIT)}"


def agrees(line: Line) -> bool:
    """A line of the smoke run. Without fp16 and TF32 coordinates must be the same; with them, trained weights find
    nearly the same objects, and of random ones nothing can be said."""
    if line["way"].startswith(STRICT):
        return bool(line["alike"] >= ALIKE * line["images"])
    return bool(line["task"] != "detect" or line["matched"] >= MATCHED["fp16" if "fp16" in line["way"] else "fp32"])


def _busy(line: Line) -> str:
    stages = ", ".join(f"{stage} {spent}" for stage, spent in line.get("stage_us", {}).items() if spent)
    shares = [
        f"main thread {line['main_thread']:.0%} busy" if "main_thread" in line else "",
        f"{line['worker_cores']:.1f} cores a worker" if "worker_cores" in line else "",
        f"GPU {line['gpu_busy']:.0%} busy" if "gpu_busy" in line else "",
        f"µs an image: {stages}" if stages else "",
        line.get("bottleneck", ""),
    ]
    return "; ".join(filter(None, shares)) or "nothing is known"


def _rate(best: Line | None, goal: int, how: str) -> str:
    if best is None:
        return f"{goal} images/s {how}: not measured"
    rows = best.get("rows")
    agreement = f", {rows['matched']:.1%} of the CPU's boxes" if rows else ""
    said = f"{best['images_per_s']:.0f} images/s {how} ({Setting.of(best)}{agreement})"
    return f"{said}; the goal, of one H100 with 16 cores, is {goal}: {_reached(best['images_per_s'] >= goal)}"


def _survived(line: Line) -> str:
    killed = "a worker killed and" if line["killed"] else "no worker was killed in time,"
    return f"{killed} the run stopped, then continued: {line['verify']}"


def _fastest(lines: Sequence[Line]) -> float | None:
    return max((line["images_per_s"] for line in lines), default=None)


def _best(lines: Iterator[Line]) -> Line | None:
    return max(lines, key=lambda line: line["images_per_s"], default=None)


def _reached(is_so: bool) -> str:
    return "reached" if is_so else "missed"
