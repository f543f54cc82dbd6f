"""`farm` and `python -m farm`: run one command, and say in one line what went wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from importlib import import_module

from farm.cli.parser import check_command, make_parser
from farm.cli.signals import Stopped, stopped_by_signals
from farm.errors import EXIT_DONE, EXIT_FATAL, EXIT_SIGINT, EXIT_SIGTERM, EXIT_USAGE, ConfigError, FarmError
from farm.machine import shortage
from farm.machine.standard_streams import Unfailing, unfailing


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; errors of farm's own are one line on standard error."""
    with unfailing() as output:
        parser = make_parser()
        try:
            check_command(sys.argv[1:] if argv is None else argv)
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
        with stopped_by_signals(), shortage.named():
            shortage.check_command()
            return int(import_module(f"farm.cli.{args.command}").execute(args))
    except FarmError as error:
        _say(error)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print("farm: interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_SIGTERM if isinstance(stop, Stopped) else EXIT_SIGINT


def _say(error: FarmError) -> None:
    """Print the error. On a terminal its words stay whole, so that a path or a `key=value` can be copied."""
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
