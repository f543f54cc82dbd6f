"""What is mounted on the machine that the tests run on."""

import os

from farm.core.mounts import place_of
from farm.machine.mount_points import holds_nothing, mounted


def test_this_machine_has_a_root_that_holds_something(tmp_path):
    assert place_of("/", mounted()).point == "/"
    assert not holds_nothing("/")
    (tmp_path / "lost+found").mkdir()
    assert holds_nothing(str(tmp_path)) and holds_nothing(os.path.join(tmp_path, "none"))
