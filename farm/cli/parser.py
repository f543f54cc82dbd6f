"""The commands that there are, and their parser. Imports nothing heavy: `farm --help` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import import_module

from farm.errors import ConfigError
from farm.version import VERSION

COMMANDS = {
    "run": "label images; continues if the run directory holds earlier work",
    "check": "validate a config and print the resolved plan; runs nothing",
    "tune": "measure plans on a sample of your images, and write the fastest as a config",
    "verify": "recount the promises of a run from its parts; non-zero when broken",
    "retry": "give the failed images of a run another chance",
    "export": "project a run's parts into another format",
    "cache": "list or clear what farm keeps on this machine: converted models, shared weights, downloads",
    "schema": "print the JSON Schema of the config, for editors",
}
EXIT_CODES = """\
exit codes:
  0 done   1 fatal, for verify: broken   2 usage or config
  3 finished, some images failed or could not be looked at
  130/143 interrupted (Ctrl-C/SIGTERM or a closed terminal), run again to continue
"""
EPILOG = f"""\
{EXIT_CODES}
examples:
  farm run source=/data/images model=yolo26n.pt output=runs/a
  farm run config.yaml workers.count=4
  farm check config.yaml
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farm",
        description="Label very large image collections with Ultralytics YOLO models, on all cores and GPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"farm {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, summary in COMMANDS.items():
        described = f"{summary[0].upper()}{summary[1:]}. What its exit code means: farm --help"
        command = commands.add_parser(name, help=summary, description=described)
        import_module(f"farm.cli.{name}").configure(command)
    return parser


def check_command(words: Sequence[str]) -> None:
    """Raises ConfigError where the first word is no command, with the one that was meant."""
    word = words[0] if words else ""
    if not word or word.startswith("-") or word in COMMANDS:
        return
    if "=" in word or os.path.isfile(word):
        raise ConfigError(f"farm has no command {word!r}; to label images: farm run {word} ...")
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, 1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    raise ConfigError(f"farm has no command {word!r}; {meant}")
