"""The connection to Ray: a cluster that is there, a Ray of this run's own, or the one that a program has.

Runs in the driver's process. What was not there before is gone afterwards.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import secrets
import socket
import time
import warnings
from collections.abc import Iterator
from typing import Any

from farm.config.sections import FarmConfig
from farm.core.placement import Placement, usable_cores
from farm.errors import ConfigError
from farm.machine.inspection import inspect_machine
from farm.storage.scratch import Scratch
from farm.supervisor.inheritance import environment_set

LOCAL = "local"  # as ray.address: a Ray of this run's own
OBJECT_STORE_BYTES = 128 << 20  # of a Ray that farm starts: only lists of items pass through it
OBJECT_STORE_BYTES_PER_ACTOR = 2 << 20
KNOCK_S = 5.0
RAYS_OWN = "r"  # short: names of sockets have a limit
SOCKETS_BYTES = len("/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store") + 1  # below Ray's folder
REMOVE_TRIES, REMOVE_WAIT_S = 20, 0.25
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


def import_ray() -> Any:
    """Raises ConfigError where Ray is not installed."""
    try:
        import ray
    except ImportError:
        raise ConfigError('engine: ray needs Ray, which is not installed; `pip install "yolo-farm[ray]"`') from None
    return ray


@contextlib.contextmanager
def connected(config: FarmConfig, placements: tuple[Placement, ...]) -> Iterator[None]:
    """Ray as the config has it; what was not there before is gone afterwards. A program's own Ray is used as it is."""
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    if "://" in config.ray.address:
        raise ConfigError(
            f"ray.address {config.ray.address}: farm is no Ray client; run it on a node of the cluster with ray=auto"
        )
    gc.collect()  # handles of a Ray that this process had before: ids are the same again, and theirs would be let go
    with contextlib.ExitStack() as stack:
        _quieten(stack)
        stack.callback(ray.shutdown)
        try:
            if config.ray.address == LOCAL:
                _start(stack, ray, config, len(placements))
            else:
                _knock(config.ray.address)
                ray.init(address=config.ray.address, **QUIET)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"ray.address {config.ray.address}: {type(error).__name__}: {text}") from None
        yield


def _knock(address: str) -> None:
    """Raises OSError where nobody listens there: Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _quieten(stack: contextlib.ExitStack) -> None:
    """Turn off what Ray does unasked: printing into the program's output, beside its logs, and starting by itself."""
    stack.enter_context(environment_set({"RAY_BACKEND_LOG_LEVEL": "fatal"}))
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.")  # advice about the dataset
    hook: Any = importlib.import_module("ray._private.auto_init_hook")
    stack.enter_context(_patched(hook, "enable_auto_connect", False))  # or a thread that is late starts another Ray
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    worker: Any = importlib.import_module("ray._private.worker")
    connect = worker.connect

    def connect_quietly(*args: Any, **options: Any) -> Any:
        with _no_stderr():  # one line of C++ that says that the level is fatal
            return connect(*args, **options)

    stack.enter_context(_patched(worker, "connect", connect_quietly))
    stack.enter_context(_patched(worker, "print_to_stdstream", lambda data, ignore_prefix: None))


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """A module's name stands for something else meanwhile."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _start(stack: contextlib.ExitStack, ray: Any, config: FarmConfig, actors: int) -> None:
    """A Ray of this run's own: on the loopback interface, behind a token, without a dashboard, in a temporary folder.

    Ray reads most of this from the environment, also in the processes that it starts.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    machine = inspect_machine(config.workers.devices != "cpu")
    stack.callback(_read_environment)  # once it is again what it was: another cluster may have another token, or none
    folder = Scratch("ray", SOCKETS_BYTES)
    stack.callback(_remove, folder)
    stack.enter_context(
        environment_set(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # there Ray keeps to 127.0.0.1, and so it does here with it
                "RAY_USAGE_STATS_ENABLED": "0",
            }
        )
    )
    _read_environment()
    stack.callback(ray.shutdown)  # before the folder goes
    with _patched(constants, "ENABLE_RAY_CLUSTER", False):  # read from the environment when ray was imported
        ray.init(
            address=LOCAL,
            num_cpus=usable_cores(machine),
            num_gpus=len(machine.cuda_devices),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES + actors * OBJECT_STORE_BYTES_PER_ACTOR,
            _temp_dir=str(folder.path / RAYS_OWN),  # which Ray opens to everybody
            **QUIET,
        )


def _read_environment() -> None:
    """Let Ray read again what it read when it was imported: whether there is a token, and which."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _remove(folder: Scratch) -> None:
    """Ray's processes may write their last words into it after the shutdown has returned."""
    for _ in range(REMOVE_TRIES):
        folder.close()
        if not folder.path.exists():
            return
        time.sleep(REMOVE_WAIT_S)
