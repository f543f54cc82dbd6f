"""Arguments that several commands share: a config file and overrides, in any order."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farm.config.sections import FarmConfig


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        nargs="*",
        metavar="CONFIG | section.key=value",
        help="a YAML config, then overrides; overrides alone do too",
    )


def load_config(args: argparse.Namespace) -> FarmConfig:
    """The config that the command line names. Raises ConfigError."""
    from farm.config.loading import load
    from farm.errors import ConfigError

    files = [word for word in args.config if "=" not in word or os.path.isfile(word)]
    overrides = [word for word in args.config if word not in files]
    if len(files) > 1:
        raise ConfigError(f"one config file at a time; given: {', '.join(files)}")
    if not files and not overrides:
        raise ConfigError("nothing to run; give a config file, or source=FOLDER model=yolo26n.pt output=runs/a")
    return load(files[0] if files else None, overrides)


def positive(text: str) -> float:
    """The type of an option that takes a positive number, of seconds or whatever; inf and nan are none."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return number


def this_program() -> str:
    """How farm was called."""
    return "python -m farm" if sys.argv[0].endswith("__main__.py") else "farm"


def this_command() -> str:
    """The command line as it can be typed again."""
    return " ".join([this_program(), *map(shlex.quote, sys.argv[1:])])
