"""How busy devices are: the mean of what the driver says, looked at beside the run."""

import threading

import pytest

from farm.machine import device_load
from farm.machine.device_load import DeviceLoad
from tests.support.driver import Driver, Handle
from tests.support.harness import wait_for

MIB = 1 << 20


@pytest.fixture
def driver(tmp_path, monkeypatch):
    monkeypatch.setattr(device_load, "NVML_EVERY_S", 0.02)
    monkeypatch.setattr(device_load, "NVIDIA_SMI_EVERY_S", 0.02)
    return Driver(tmp_path, monkeypatch)


def looking(uuids):
    load = DeviceLoad(uuids)
    load.start()
    load.start()
    return load


def test_nvml_is_asked_again_and_again(driver):
    driver.binding(Handle("A", "GPU-aaa", load=[(80, 500), (40, 900), (60, 700)]), Handle("B", "GPU-bbb"))
    load = looking(["GPU-aaa", "GPU-gone"])
    assert wait_for(lambda: "GPU-aaa" in load._loads and load._loads["GPU-aaa"]._looks > 5, 10)
    seen = load.stop()
    assert list(seen) == ["GPU-aaa"], "one that does not answer is not shown"
    assert 0.5 < seen["GPU-aaa"].busy < 0.7 and seen["GPU-aaa"].peak_bytes == 900 * MIB
    assert seen["GPU-aaa"].total_bytes == 80 << 30


def test_nvidia_smi_is_asked_where_the_binding_is_missing(driver):
    driver.command([], load=["GPU-aaa, 37, 1024, 81559", "GPU-bbb, [N/A], [N/A], 40960", "GPU-ccc, 1, 2, 3"])
    load = looking(["GPU-aaa", "GPU-bbb"])
    assert wait_for(lambda: len(load._loads) == 2, 20)
    seen = load.stop()
    assert (seen["GPU-aaa"].busy, seen["GPU-aaa"].peak_bytes) == (0.37, 1024 * MIB)
    assert (seen["GPU-bbb"].busy, seen["GPU-bbb"].peak_bytes) == (None, None)


@pytest.mark.parametrize("code", [None, 9])
def test_nothing_is_known_where_nobody_tells(driver, code):
    if code is not None:
        driver.command([], load=["no"], code=code)
    load = looking(["GPU-aaa"])
    assert wait_for(lambda: not load._thread.is_alive(), 20)
    assert load.stop() == {}


def test_a_driver_that_hangs_holds_nobody_up(driver):
    library, hanging, gone_on = (
        driver.binding(Handle("A", "GPU-aaa", load=[(50, 1)])),
        threading.Event(),
        threading.Event(),
    )

    def hang(uuid):
        hanging.set()
        gone_on.wait(60)

    library.nvmlDeviceGetHandleByUUID = hang
    load = looking(["GPU-aaa"])
    assert hanging.wait(10)
    assert load.stop() == {} and load._thread.is_alive()
    gone_on.set()
    load._thread.join(10)
    load.start()
    assert not load._thread.is_alive(), "what was stopped stays so"
