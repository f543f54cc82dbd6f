"""`make chaos MINUTES=n`: kill processes of every role at random for as long as asked, and compare the rows.

    python -m tests.chaos --minutes 10 [--kills 1000] [--source FOLDER --weights FILE --every 1.5]

Runs over the same images are started again and again; workers, the collector and the supervisor are killed with
SIGKILL (now and then the whole group) until a run comes to its end; then its rows must be those of an undisturbed
run. With real weights the COCO images beside the checkout are labelled, without them drawn ones by the fake model.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import farm
from tests.support.harness import config, group_members, pictures, rows, segments, start

HELPERS = "starting, or fork server"
HELPERS_SHARE = 0.15  # a fork server that is killed whenever it is seen never starts anything


def role_of(pid: int) -> str:
    """What a process of a farm is, by the name it gave itself."""
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name.startswith("farm-"):
            return name.removeprefix("farm-").rstrip("0123456789").rstrip("-")
    return HELPERS


def disturb(
    values: dict[str, object], folder: Path, chance: random.Random, kills: Counter[str], enough: int, every_s: float
) -> None:
    """One command, killed at until it is dead or done."""
    process = start(values, folder)
    while process.poll() is None and kills.total() < enough:
        time.sleep(chance.uniform(0.1, 1.9) * every_s)
        children = [pid for pid in group_members(process.pid) if pid != process.pid]
        dice = chance.random()
        with contextlib.suppress(ProcessLookupError):
            if dice < 0.03:
                os.killpg(process.pid, signal.SIGKILL)
                kills["whole group"] += 1
            elif dice < 0.06:
                os.kill(process.pid, signal.SIGKILL)
                kills["supervisor"] += 1
            elif children:
                victim = chance.choice(children)
                role = role_of(victim)
                if role == HELPERS and chance.random() > HELPERS_SHARE:
                    continue
                os.kill(victim, signal.SIGKILL)
                kills[role] += 1
    out, err = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL) and "limits.max_restarts" not in err:
        raise SystemExit(f"a run ended with {process.returncode}:\n{out}\n{err}")


def round_of_chaos(
    source: Path, folder: Path, model: dict[str, object], chance: random.Random, enough: int, every_s: float
) -> Counter[str]:
    """Kill until there was enough, then let it finish; rows must be those of a run that nobody disturbed."""
    kills: Counter[str] = Counter()
    values = config(source, folder / "run", **model)
    while kills.total() < enough:
        disturb(values, folder, chance, kills, enough, every_s)
        if (folder / "run" / "summary.json").exists() and kills.total() < enough:
            break
    farm.run(values)
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--kills", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--every", type=float, default=0.13, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--source", type=lambda text: Path(text).resolve(), help="real images, labelled with --weights")
    parser.add_argument("--weights", type=lambda text: Path(text).resolve())
    args = parser.parse_args()
    chance, total, rounds, wrong = random.Random(args.seed), Counter[str](), 0, 0
    deadline = time.monotonic() + args.minutes * 60
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = args.source or pictures(folder / "source", 600)
        model: dict[str, object] = {"model": {"sleep_ms": 6}}
        if args.weights:
            model = {"model": {"weights": str(args.weights), "imgsz": 320}}
        values = config(source, folder / "undisturbed", **model)
        farm.run(values)
        expected = rows(folder / "undisturbed")
        while time.monotonic() < deadline and total.total() < args.kills:
            total += round_of_chaos(source, folder, model, chance, args.kills - total.total(), args.every)
            rounds += 1
            difference = set(rows(folder / "run")) ^ set(expected)
            wrong += len(difference) + abs(len(rows(folder / "run")) - len(expected)) + len(segments(folder / "run"))
            print(f"round {rounds}: {dict(total)}, {len(difference)} rows differ", flush=True)
            shutil.rmtree(folder / "run")
    print(f"{total.total()} kills in {rounds} rounds over {len(expected)} images: {dict(total)}; {wrong} differences")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
