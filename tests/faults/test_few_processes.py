"""Few processes: a group's pids.max and a user's `ulimit -u`. One line says so within seconds, and nothing is left."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.harness import ROOT, config, pictures, wait_for

PIDS = Path("/sys/fs/cgroup/pids")
STRANGER = "23456"  # no user of this machine: a limit on its processes is nobody else's
CAPABILITIES = "+dac_override,+dac_read_search"  # it may read what root has installed
UNCHECKED = """
import sys, farm.cli.entry, farm.machine.shortage
farm.machine.shortage.check_processes = farm.machine.shortage.check_command = lambda *_: None
sys.exit(farm.cli.entry.main(["run", sys.argv[1]]))
"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def group(tmp_path):
    """Its number of processes can be limited. Whatever is left in it at the end is a failure."""
    made = PIDS / f"farm-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        made.mkdir()
        (made / "pids.max").write_text("max")
    except OSError as error:
        pytest.skip(f"no group of processes can be made here: {error}")
    yield made
    left = not wait_for(lambda: not (made / "cgroup.procs").read_text(), 30)
    for pid in (made / "cgroup.procs").read_text().split():
        os.kill(int(pid), 9)
    assert wait_for(lambda: not (made / "cgroup.procs").read_text(), 30)
    made.rmdir()
    assert not left


def farm_run(tmp_path, limited, kind, workers=2, program=("-m", "farm", "run")):
    """`limited`: the words of a command before that of Python."""
    source = pictures(tmp_path / "source", 20)
    tmp_path.chmod(0o777)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(source, tmp_path / "run", workers={"kind": kind, "count": workers})))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*limited, sys.executable, *program, str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100)


def in_group(group, limit):
    (group / "pids.max").write_text(str(limit))
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"']


def said(done):
    """The only line, but for those of the progress."""
    (line,) = [line for line in done.stderr.splitlines() if not re.match(r"\d+:\d\d:\d\d  ", line)]
    assert done.returncode == 1
    return line


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (3, r"farm: 2 more processes and threads may be started, too few for any work: the limit is 3 .*pids.max"),
        (40, r"farm: 10 workers need at least 44 processes and threads, and \d+ more .*; raise it, or set workers.co"),
    ],
)
def test_too_few_processes_are_seen_before_any_is_started(group, tmp_path, limit, words):
    assert re.match(words, said(farm_run(tmp_path, in_group(group, limit), "process", workers=10)))


@pytest.mark.parametrize(("limit", "kind"), [(6, "process"), (10, "process"), (6, "thread")])
def test_a_process_or_thread_that_is_refused_is_named(group, tmp_path, limit, kind):
    """Others have taken what was there a moment before: the lister, a worker, or a thread of its cannot start."""
    done = farm_run(tmp_path, in_group(group, limit), kind, program=("-c", UNCHECKED))
    words = (
        rf"farm: .*no more processes and threads can be started: the limit is {limit} .*pids.max.*workers.kind=thread"
    )
    assert re.match(words, said(done))


def test_a_limit_on_the_processes_of_a_user(tmp_path):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user")
    user = ["setpriv", "--reuid", STRANGER, f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"]
    done = farm_run(tmp_path, [*user, "prlimit", "--nproc=10:10"], "process")
    assert re.match(
        r"farm: 2 workers need at least 12 .*the limit is 10 for all of this user's \(ulimit -u\)", said(done)
    )
