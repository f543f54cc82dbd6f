"""CUDA devices without torch, and without CUDA: as nvidia-smi, NVML or the driver's files tell them."""

import importlib.machinery
import importlib.util

import pytest

from farm.machine import cuda_devices
from farm.machine.cuda_devices import cpus_in, find, in_order_of_the_bus
from farm.machine.hardware import CudaDevice
from tests.support.driver import Driver, Handle

TWO = (
    "GPU-aaa, 00000000:3B:00.0, [N/A], 580.82.07, NVIDIA A",
    "GPU-bbb, 00000000:5E:00.0, [N/A], 580.82.07, NVIDIA B, of a kind",
)
CUT = (
    "GPU-aaa, 00000000:3B:00.0, Enabled, 580.82.07, NVIDIA A100",
    "GPU-bbb, 00000000:5E:00.0, Disabled, 580.82.07, NVIDIA A100",
)
INFORMATION = "Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nBus Location: \t 0000:3b:00.0\nDevice Minor: \t {minor}\n"


@pytest.fixture
def driver(tmp_path, monkeypatch):
    return Driver(tmp_path, monkeypatch)


def names():
    return tuple(device.name for device in find(range(8))[0])


def uuids():
    return tuple(device.uuid for device in find(range(8))[0])


def test_nvidia_smi_tells_devices(driver):
    driver.command(TWO)
    assert find(range(8)) == ((CudaDevice("NVIDIA A", "GPU-aaa"), CudaDevice("NVIDIA B, of a kind", "GPU-bbb")), "")


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("1", ("GPU-bbb",)),
        ("1,GPU-aa", ("GPU-bbb", "GPU-aaa")),
        ("0,7,1", ("GPU-aaa",)),  # as CUDA has it, nothing counts after a name that is unknown
        ("MIG-0c3c,7", ("MIG-0c3c",)),  # a slice of a device is a device
        ("", ()),
        ("-1", ()),
    ],
)
def test_what_the_user_makes_visible(driver, monkeypatch, visible, seen):
    driver.command(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert uuids() == seen
    assert find(range(8))[1] == "", "the user's own choice"


def test_a_choice_that_names_nothing_is_said(driver, monkeypatch):
    driver.command(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    devices, why = find(range(8))
    assert devices == () and "CUDA_VISIBLE_DEVICES=7 names none of them" in why and "NVIDIA A" in why


def test_slices_are_devices_and_what_they_are_cut_from_is_none(driver, monkeypatch):
    driver.command(CUT)
    assert uuids() == ("MIG-111", "MIG-222", "GPU-bbb")
    assert names() == ("NVIDIA A100 MIG 3g.20gb", "NVIDIA A100 MIG 1g.5gb", "NVIDIA A100")
    assert [device.is_slice for device in find(range(8))[0]] == [True, True, False]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-222,MIG-111")
    assert uuids() == ("MIG-222", "MIG-111")


def test_a_device_that_is_to_be_cut_and_is_not_is_of_no_use(driver):
    driver.command(CUT[:1], listing="GPU 0: NVIDIA A100 (UUID: GPU-aaa)\n")
    assert find(range(8))[0] == ()
    assert "in MIG mode and have no slices" in find(range(8))[1]


def test_the_cpus_near_a_device(driver):
    driver.command(TWO)
    driver.write(driver.pci / "0000:3b:00.0" / "local_cpulist", "0-3,16-19\n")
    driver.write(driver.pci / "0000:5e:00.0" / "local_cpulist", "0-31\n")
    first, second = find((1, 2, 5, 17))[0]
    assert first.cpus == (1, 2, 17)
    assert second.cpus == (), "all are equally near"


@pytest.mark.parametrize("text", ["", "\n", "0", "0-3,8,10-11\n"])
def test_lists_of_cpus(text):
    assert cpus_in(text) == {"": set(), "\n": set(), "0": {0}}.get(text, {0, 1, 2, 3, 8, 10, 11})


def test_nvml_tells_devices_where_nvidia_smi_is_missing(driver):
    slices = [Handle("NVIDIA B MIG 1g.5gb", "MIG-111"), Handle("NVIDIA B MIG 1g.5gb", "MIG-222")]
    library = driver.binding(Handle("NVIDIA A", "GPU-aaa"), Handle("NVIDIA B", "GPU-bbb", slices=slices))
    driver.write(driver.pci / "0000:00:00.0" / "local_cpulist", "0-1\n")
    assert find(range(4))[0] == (
        CudaDevice("NVIDIA A", "GPU-aaa", (0, 1)),
        CudaDevice("NVIDIA B MIG 1g.5gb", "MIG-111", is_slice=True),
        CudaDevice("NVIDIA B MIG 1g.5gb", "MIG-222", is_slice=True),
    )
    assert library.inits == 0, "it is closed again"


def test_the_drivers_files_tell_devices_that_this_container_has(driver):
    for minor, uuid in enumerate(("GPU-aaa", "GPU-????????-????")):
        text = INFORMATION.format(uuid=uuid, minor=minor)
        driver.write(driver.files / "gpus" / f"0000:{minor}b:00.0" / "information", text)
    driver.write(driver.device_files / "nvidia1")
    assert find(range(8)) == ((CudaDevice("NVIDIA H100"),), "")
    driver.write(driver.device_files / "nvidia0")
    assert uuids() == ("GPU-aaa", "")


# A driver is there, and no device can be used


def test_nothing_is_said_where_there_is_no_driver(driver):
    assert find(range(8)) == ((), "")
    driver.command(["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], code=9)
    assert find(range(8)) == ((), ""), "the command alone is no driver"


def test_a_driver_whose_devices_nobody_lists(driver):
    driver.write(driver.device_files / "nvidia0")
    devices, why = find(range(8))
    assert devices == () and "nvidia0" in why and "neither nvidia-smi nor NVML" in why and "--gpus all" in why


def test_a_driver_that_does_not_answer(driver):
    driver.write(driver.files / "version")
    driver.command(["Failed to initialize NVML: Driver/library version mismatch"], code=18)
    devices, why = find(range(8))
    assert devices == () and "lists no device: Failed to initialize NVML: Driver/library version mismatch" in why


def test_devices_without_the_library_of_cuda(driver, monkeypatch):
    driver.binding(Handle("NVIDIA A", "GPU-aaa"))
    monkeypatch.setattr(cuda_devices, "_is_loadable", lambda: False)
    assert find(range(8)) == (
        (),
        "the CUDA devices here (NVIDIA A) cannot be used: libcuda.so.1 cannot be loaded; give the container all of the "
        "driver (docker run --gpus all)",
    )


VERSION = "__version__ = '2.14.1+{}'\ndebug = False\ncuda: Optional[str] = {}\nhip: Optional[str] = None\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (VERSION.format("cu130", "'13.0'"), ("2.14.1+cu130", "13.0")),
        (VERSION.format("cpu", "None"), ("2.14.1+cpu", "None")),
        ("__version__ = '2.14.1'\ncuda = None\n", ("2.14.1", "None")),
        ("# of another kind\n", (None, None)),
        (None, (None, None)),
    ],
)
def test_how_torch_was_built_is_read_and_not_imported(tmp_path, monkeypatch, text, said):
    if text is not None:
        (tmp_path / "version.py").write_text(text)
    spec = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    found = cuda_devices._torch_build()
    assert (found.get("__version__"), found.get("cuda")) == said


def test_a_torch_without_cuda_is_said_of_devices(driver):
    driver.torch = {"__version__": "2.14.1+cpu", "cuda": "None"}
    driver.command(TWO)
    devices, why = find(range(8))
    assert devices == ()
    assert "(NVIDIA A, NVIDIA B, of a kind) cannot be used: torch 2.14.1+cpu is built without CUDA; install" in why


@pytest.mark.parametrize(
    ("version", "knows", "torch", "usable"),
    [
        ("535.54.03", "12.2", "13.0", False),
        ("535.54.03", "12.2", "12.8", True),  # any minor version will do
        ("535.54.03", "13.0", "13.0", True),  # a container brings the library of a newer driver
        ("580.82.07", "13.0", "13.2", True),
        ("470.1", "11.4", "12.6", False),
        ("[N/A]", "12.2", "13.0", True),  # not known: the first worker will see
        ("535.54.03", "N/A", "13.0", True),
        ("535.54.03", "12.2", "", True),
    ],
)
def test_a_driver_that_is_too_old_for_this_torch(driver, version, knows, torch, usable):
    driver.torch = {"__version__": "2.14.1", "cuda": torch}
    driver.command([f"GPU-aaa, 00000000:3B:00.0, [N/A], {version}, NVIDIA A"], cuda=knows)
    devices, why = find(range(8))
    assert bool(devices) == usable
    said = f"torch 2.14.1 is built for CUDA {torch}, and driver {version} knows CUDA {knows}; install a newer driver"
    assert (said in why) == (not usable)


def test_devices_are_numbered_as_nvidia_smi_does_unless_the_user_orders_them():
    assert in_order_of_the_bus({}) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert in_order_of_the_bus({"CUDA_VISIBLE_DEVICES": "1,0"}) == {}
    assert in_order_of_the_bus({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}) == {}
