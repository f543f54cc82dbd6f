"""The life of a `Farm`: how it is made, shared, left early, forked and killed, with real processes."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import spawn
from pathlib import Path

import numpy as np
import pytest

from farm import Farm, FarmError
from farm.errors import ModelError, OutputError, WorkerError
from farm.ipc.shared_memory import leftovers
from farm.storage.run_store import RunStore
from tests.support.harness import FAKE, POISON, ROOT, fake, group_members, paths, pictures, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("model", ["~/models/a.pt", Path("~/models/a.pt"), {"weights": "~/models/a.pt"}], ids=repr)
def test_weights_below_the_home_folder(monkeypatch, tmp_path, model):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelError, match=f"{tmp_path}/models/a.pt"):
        Farm(model=model)


def test_a_poison_image_costs_its_attempts_and_nothing_else(tmp_path):
    source = sorted(pictures(tmp_path / "source", 12, poisoned=(5,)).iterdir())
    with Farm(model=fake(pixels=True, kill_on=POISON), workers=2, limits={"attempts": 2}) as farm:
        results = list(farm.map(source, order="input"))
    assert [result.status for result in results].count("ok") == 11
    assert results[5].error["type"] == "SIGSEGV"


def test_a_model_that_cannot_be_made_reaches_everybody():
    with Farm(model=fake(fail_init="no such device"), workers=1) as farm:
        future = farm.submit("a.jpg")
        with pytest.raises(WorkerError, match="no such device"):
            list(farm.map(paths(10)))
        with pytest.raises(WorkerError, match="no such device"):
            future.result(30)
        with pytest.raises(WorkerError):
            farm.submit("b.jpg")


def test_a_farm_that_cannot_begin_tells_the_first_image_of_it(monkeypatch):
    """Also where its thread has failed before `submit` returns."""

    def refuse(path):
        raise OutputError("no room")

    monkeypatch.setattr(RunStore, "open", refuse)
    for _ in range(20):
        with Farm(model=fake(), workers=1) as farm, pytest.raises(OutputError, match="no room"):
            farm.submit("a.jpg").result(30)


def test_factories_that_are_not_there():
    with pytest.raises(ModelError, match="put it into a module"):
        Farm(model={"factory": "__main__:make"}, workers=1)


def remains(farm):
    return [pid for pid in farm.pids if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_two_farms_that_start_at_once_leave_the_program_as_it_was():
    before, main = dict(os.environ), sys.modules["__main__"]

    def work(number):
        with Farm(model=fake(), workers=2) as farm:
            return len(list(farm.map(paths(20))))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(6))) == [20] * 6
    assert dict(os.environ) == before
    assert sys.modules["__main__"] is main
    assert spawn.get_preparation_data.__name__ == "get_preparation_data"


def test_a_forked_child_leaves_the_farm_to_its_parent(tmp_path):
    text = (
        HEAD
        + """
import os
list(farm_.map(["a.jpg"]))
child = os.fork()
if not child:
    try:
        farm_.submit("b.jpg")
    except farm.FarmError as error:
        print(error, flush=True)
    farm_.close()
    os._exit(0)
os.waitpid(child, 0)
print(len(list(farm_.map(["c.jpg", "d.jpg"]))))
"""
    )
    out, err = script(tmp_path, text).communicate(timeout=60)
    assert out.splitlines() == [
        "a Farm does not survive a fork: its workers are the parent's; make one in the child",
        "2",
    ]
    assert err == ""


def test_a_farm_whose_folder_is_gone_says_so(temporary):
    """Whatever keeps the supervisor from starting, nobody waits for ever."""
    with Farm(model=fake(), workers=1) as farm:
        (folder,) = temporary.glob("farm-library-*")
        shutil.rmtree(folder)
        folder.write_text("in the way")
        with pytest.raises(FarmError, match="cannot be written"):
            farm.submit("a.jpg").result(30)
        with pytest.raises(FarmError, match="cannot be written"):
            farm.submit("b.jpg")
        folder.unlink()


def test_a_farm_is_not_pickled(farm):
    with pytest.raises(WorkerError, match=r"not sent to another process: .* make one there"):
        pickle.dumps(farm)


def test_a_closed_farm_takes_nothing(temporary, spooled):
    with Farm(model=fake(), workers=1) as farm:
        farm.submit(np.zeros((4, 4, 3), np.uint8)).result(30)
    with pytest.raises(FarmError, match="the farm is closed"):
        farm.submit(np.zeros((4, 4, 3), np.uint8))
    assert not leftovers(f"spool-{farm.name}-")
    assert not list(temporary.glob("farm-library-*"))


def test_what_a_killed_program_left_is_removed_by_the_next(temporary, tmp_path):
    body = "import numpy as np\nfarm_.submit('a.jpg').result()\n"
    body += "futures = [farm_.submit(np.zeros((99, 99, 3), np.uint8)) for _ in range(200)]\n"
    body += "print(farm_.name, flush=True)\nfutures[-1].result()\n"
    process = script(tmp_path, HEAD + body)
    name = process.stdout.readline().strip()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    (folder,) = temporary.glob("farm-library-*")
    assert leftovers(f"{name}-")
    assert leftovers(f"spool-{name}-")
    with Farm(model=fake(), workers=1):
        (other,) = temporary.glob("farm-library-*")
        assert other != folder
        assert not leftovers(f"{name}-")
        assert not leftovers(f"spool-{name}-")
        with Farm(model=fake(), workers=1):
            assert other.exists(), "who lives keeps what is its own"


def test_leaving_early_stops_everything(temporary):
    with Farm(model=fake(sleep_ms=50), workers=2) as farm:
        for _ in farm.map(paths(10**9)):
            farm.pids = list(farm.processes().values())
            prefix = f"{farm.name}-"
            assert leftovers(prefix)
            break
    assert wait_for(lambda: not remains(farm), 30)
    assert not leftovers(prefix)
    assert not list(temporary.glob("farm-library-*"))
    with pytest.raises(FarmError, match="closed"):
        farm.submit("a.jpg")


def test_an_exception_in_the_block_stops_everything():
    with pytest.raises(ZeroDivisionError), Farm(model=fake(sleep_ms=50), workers=1) as farm:
        for _ in farm.map(paths(10**9)):
            farm.pids = list(farm.processes().values())
            raise ZeroDivisionError
    assert wait_for(lambda: not remains(farm), 30)


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        start_new_session=True,
    )  # fmt: skip


HEAD = f"import farm\nfarm_ = farm.Farm(model={{'factory': '{FAKE}', 'args': {{'sleep_ms': 20}}}}, workers=2)\n"


def test_a_script_without_a_guard_for_main(tmp_path):
    process = script(tmp_path, HEAD + "print(sum(1 for _ in farm_.map(f'{n}.jpg' for n in range(20))))\n")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "20", "")
    assert wait_for(lambda: not group_members(process.pid), 30), "it never closed its farm, and yet nothing stays"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_consumer_that_dies_leaves_nothing(tmp_path, number):
    body = "for n, _ in enumerate(farm_.map(f'{n}.jpg' for n in range(10**9))):\n    n or print('go', flush=True)\n"
    process = script(tmp_path, HEAD + body)
    assert process.stdout.readline().strip() == "go"
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert wait_for(lambda: not group_members(process.pid), 30)


LABELS = f"""
from farm import Farm
def work():
    with Farm(model={{"factory": "{FAKE}"}}, workers=1) as f:
        print(f.submit("a.jpg").result().status)
"""


def test_a_program_that_comes_from_standard_input():
    done = subprocess.run(
        [sys.executable, "-"], input=f"{LABELS}\nwork()", cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_has_a_farm_of_its_own(tmp_path, method):
    main = f"""
if __name__ == "__main__":
    import multiprocessing
    child = multiprocessing.get_context("{method}").Process(target=work)
    child.start()
    child.join()
"""
    out, err = script(tmp_path, LABELS + main).communicate(timeout=60)
    assert out.strip() == "ok", err


def test_not_the_main_thread():
    results = []

    def work():
        with Farm(model=fake(), workers=1) as farm:
            results.extend(farm.map(paths(20)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(results) == 20
