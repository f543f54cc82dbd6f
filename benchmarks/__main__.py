"""Every comparison, one after the other; results and a plot in benchmarks/results.

python -m benchmarks [--only peers scaling ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.record import plot

COSTS = ["overhead", "scaling", "start", "weights", "kinds", "large_images", "library", "engines", "resume", "nodes"]
ALL = ["peers", "forward", "streams", *COSTS, "faults"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    for name in parser.parse_args().only:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--save"], check=True)
    print(plot("Peers: the same images, the same weights", "images/s steady"))


if __name__ == "__main__":
    main()
