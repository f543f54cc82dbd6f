"""The command line: one module per command, each with `configure(parser)` and `execute(args) -> exit code`.

Command modules import what they need inside `execute`, so that `farm --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import FrameType

from farm import shortage
from farm.errors import EXIT_FATAL, EXIT_SIGINT, EXIT_SIGTERM, EXIT_USAGE, FarmError
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
EPILOG = """\
exit codes:
  0 done   1 fatal   2 usage or config   3 finished, some images failed or could not be looked at
  130/143 interrupted, run again to continue

examples:
  farm run source=/data/images model=yolo26n.pt output=runs/a
  farm run config.yaml workers.count=4
  farm check config.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; errors of farm's own are one line on standard error."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return EXIT_USAGE
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's: it starts a thread a core, or ends the program
    try:
        with _stopped_by_signals(), shortage.named():
            shortage.check_command()
            return int(import_module(f"farm.cli.{args.command}").execute(args))
    except FarmError as error:
        for line in str(error).splitlines():
            print(f"farm: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("farm: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_SIGTERM if isinstance(stop, Stopped) else EXIT_SIGINT
    except BrokenPipeError:
        return EXIT_FATAL  # what read our output is gone


class Stopped(KeyboardInterrupt):
    """SIGTERM or a closed terminal, wherever the command is: what it has started ends with it."""


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, until a run that is under way minds them itself (run.py)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farm",
        description="Label very large image collections with Ultralytics YOLO models, on all cores and GPUs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"farm {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        import_module(f"farm.cli.{name}").configure(command)
    return parser
