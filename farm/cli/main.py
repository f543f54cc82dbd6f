"""The command line: one module per command, each with `configure(parser)` and `execute(args) -> exit code`.

Command modules import what they need inside `execute`, so that `farm --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import FrameType

from farm.errors import EXIT_DONE, EXIT_FATAL, EXIT_SIGINT, EXIT_SIGTERM, EXIT_USAGE, ConfigError, FarmError
from farm.machine import shortage
from farm.machine.standard_streams import Unfailing, unfailing
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; errors of farm's own are one line on standard error."""
    with unfailing() as output:
        parser = _parser()
        try:
            _check_command(sys.argv[1:] if argv is None else argv)
            args = parser.parse_args(argv)
        except ConfigError as error:
            _say(error)
            return error.exit_code
        except SystemExit as end:  # of argparse, which has printed help, the version or what is wrong
            raise SystemExit(_unless_lost(int(end.code or EXIT_DONE), output)) from None
        if args.command is None:
            parser.print_help()
            return EXIT_USAGE
        code = _execute(args)
        return _unless_lost(code, output) if getattr(args, "prints", False) else code


def _execute(args: argparse.Namespace) -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's: it starts a thread a core, or ends the program
    try:
        with _stopped_by_signals(), shortage.named():
            shortage.check_command()
            return int(import_module(f"farm.cli.{args.command}").execute(args))
    except FarmError as error:
        _say(error)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("farm: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_SIGTERM if isinstance(stop, Stopped) else EXIT_SIGINT


def _say(error: FarmError) -> None:
    """On a terminal its words stay whole, so that a path or a `key=value` can be copied."""
    from farm.report.lines import prose_lines

    columns = shutil.get_terminal_size().columns if sys.stderr and sys.stderr.isatty() else None
    for line in str(error).splitlines():
        told = f"farm: {line}"
        print(*(prose_lines(told, columns) if columns else [told]), sep="\n", file=sys.stderr)


def _unless_lost(code: int, output: Unfailing | None) -> int:
    """The exit code of what does nothing but print (`prints` among its arguments): fatal where that was in vain."""
    if code != EXIT_DONE or output is None:
        return code
    sys.stdout.flush()
    if output.error is None:
        return code
    if not isinstance(output.error, BrokenPipeError):  # a reader that leaves has what it wanted
        print(f"farm: standard output cannot be written: {output.error.strerror}", file=sys.stderr)
    return EXIT_FATAL


def _check_command(words: Sequence[str]) -> None:
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
        described = f"{summary[0].upper()}{summary[1:]}. What its exit code means: farm --help"
        command = commands.add_parser(name, help=summary, description=described)
        import_module(f"farm.cli.{name}").configure(command)
    return parser
