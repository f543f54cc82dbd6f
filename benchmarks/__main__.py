"""Every comparison, one after the other; results and a plot in benchmarks/results.

python -m benchmarks [--only peers scaling ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.record import plot

COSTS = [
    *("overhead", "scaling", "start", "weights", "kinds", "large_images", "library", "engines"),
    *("resume", "export", "nodes", "worker_loop"),
]
ALL = ["peers", "forward", "streams", *COSTS, "faults"]
ARGUMENTS = {"peers": ["--repeat", "4"]}  # as in README; other defaults are its own


def command(name: str) -> list[str]:
    """How a comparison is run here."""
    return [sys.executable, "-m", f"benchmarks.{name}", *ARGUMENTS.get(name, []), "--save"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    for name in parser.parse_args().only:
        subprocess.run(command(name), check=True)
    print(plot("Peers: the same images, the same weights", "images/s steady"))


if __name__ == "__main__":
    main()
