"""Print the environment that holds the project's dependencies, making it first where it is not there.

One environment for all clones whose pyproject.toml asks for the same: it lies under the user's cache and is named by
a digest of what is asked for. It holds dependencies only, never the project. Needs nothing but Python 3.11 with venv.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

if sys.version_info < (3, 11):  # noqa: UP036 - said before tomllib is missed
    sys.exit(f"farm needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable})")

import tomllib

PROJECT = Path(__file__).resolve().parents[1]
EXTRAS = ("dev", "docs")
COMPLETE = ".complete"


def requirements() -> list[str]:
    """What pyproject.toml asks for, with the extras that the project's own commands need."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(name for extra in EXTRAS for name in extras[extra])})


def home() -> Path:
    chosen = os.environ.get("FARM_ENV_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farm" / "envs"


def build(folder: Path, wanted: list[str]) -> None:
    """A new environment; the marker comes last, so that half of one is never taken for whole."""
    print(f"farm: installing dependencies into {folder} (once; about two minutes and 6 GB)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True, stdout=sys.stderr)
    (folder / COMPLETE).write_text("\n".join(wanted))


def lock_or_wait(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"farm: waiting for another clone to finish {lock.name.removesuffix('.lock')}", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)


def main() -> None:
    wanted = requirements()
    python = f"{sys.base_prefix}/bin/python3"  # the same by any of its names, and from inside a venv of it
    digest = hashlib.sha256("\n".join([sys.version, python, *wanted]).encode()).hexdigest()[:16]
    folder = home() / digest
    if not (folder / COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{folder}.lock", "w") as lock:
            lock_or_wait(lock)  # another clone may be building the same one
            if not (folder / COMPLETE).exists():
                try:
                    build(folder, wanted)
                except subprocess.CalledProcessError as error:
                    sys.exit(
                        f"farm: cannot make the environment: {' '.join(map(str, error.cmd[:4]))} failed (see above)"
                    )
    print(folder)


if __name__ == "__main__":
    main()
