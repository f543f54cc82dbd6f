"""The command line. Imported by `farm.__main__` and the console script alone.

entry.py      run one command; its exit code, and what went wrong in a line
parser.py     the commands that there are, exit codes, the parser
signals.py    what Ctrl-C, SIGTERM and a closed terminal do
arguments.py  arguments that several commands share

A module for each command, each with `configure(parser)` and `execute(args) -> exit code`:

run.py  check.py  tune.py  verify.py  retry.py  export.py  cache.py  schema.py

They import what they need inside `execute`, so that `farm --help` answers at once.
"""

from farm.cli.entry import main as main
