"""A process keeps to the CPUs that it is given, as far as it has them."""

import psutil

from farm.machine.pinning import pin


def test_pin_pins_this_process():
    process = psutil.Process()
    before = process.cpu_affinity()
    try:
        pin((before[0], 100_000))
        assert process.cpu_affinity() == [before[0]]
        pin((100_000,))
        assert process.cpu_affinity() == [before[0]]
    finally:
        process.cpu_affinity(before)
