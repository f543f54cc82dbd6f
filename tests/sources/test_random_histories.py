"""Files come, change, go and stumble at random: rows and labels are right in the end."""

import errno
import random

import pytest

from farm.core.schema import STATUS_FAILED
from tests.sources.sessions import ERRORS, KINDS, NAMES, Kinds, labels, newest, of_status, put, retry, run, sound

LIVING = [NAMES[0], NAMES[2]]  # few, so that much happens to each
STEPS = 24


class Life:
    """Files come, change, are put back, go, and cannot be looked at; runs and retries come between."""

    def __init__(self, kind, base, disk):
        self.disk = disk
        self.images = Kinds(kind, base, [name for name in NAMES if name[0] != "2"])
        self.run_dir = base / "run"
        self.there = {}
        self.first = {}
        self.seen = set()
        self.stamp = 0
        self.history = []

    def step(self, chance):
        deed = chance.choice([self.change, self.put_back, self.delete, self.hide, self.stumble, self.show, self.retry])
        self.history.append(deed.__name__)
        deed(chance)
        if chance.random() < 0.5:
            self.history.append("run")
            self.run()

    def change(self, chance):
        self.stamp += 1
        self._put(chance.choice(LIVING), self.stamp, self.stamp)

    def put_back(self, chance):
        """As the first version was, with its time."""
        if self.first:
            name = chance.choice([*self.first])
            self._put(name, *self.first[name])

    def delete(self, chance):
        name = chance.choice(LIVING)
        if self.there.pop(name, None):
            (self.images.files / name).unlink()

    def hide(self, chance):
        folder = chance.choice(LIVING)[0]
        self.disk.errors[str(self.images.files / folder)] = chance.choice(ERRORS)

    def stumble(self, chance):
        self.disk.stumbling[str(self.images.root / chance.choice(LIVING))] = errno.ESTALE

    def show(self, chance):
        self.disk.errors.clear()
        self.disk.stumbling.clear()

    def retry(self, chance):
        before = self.newest()
        if None in before.values():
            retry(self.run_dir, self.images.root, self.disk)
            after = self.newest()
            assert after.keys() == before.keys()
            assert all(after[name] == width for name, width in before.items() if width is not None), self.history
            self.check()

    def run(self):
        before = self.newest()
        _, source = run(self.images.place, self.run_dir, self.disk)
        after = self.newest()
        self.seen |= {name for name, width in after.items() if width is not None}
        hidden = {name for name in {*before, *self.there} if self.hides(name)}
        for name in hidden & before.keys():
            assert after[name] == before[name], (name, "nothing is known of it", self.history)
        assert source.left >= sum(before.get(name) is not None for name in hidden), self.history
        for name in ({*before, *self.there}) - hidden:
            if str(self.images.root / name) not in self.disk.stumbling:
                assert after.get(name) == self.there.get(name, (None,))[0], (name, self.history)
        self.check()

    def end(self):
        """With all to be seen, one run makes everything right, and a second has nothing to do."""
        self.show(None)
        run(self.images.place, self.run_dir, self.disk)
        made, source = run(self.images.place, self.run_dir, self.disk)
        assert source.is_complete
        assert made["labelled"] == made["vanished"] == 0, self.history
        found = {name: width for name, width in self.newest().items() if width is not None}
        assert found == {name: number for name, (number, _) in self.there.items()}, self.history
        assert not self.seen & of_status(self.run_dir, STATUS_FAILED), ("what was there once is gone", self.history)
        self.check()

    def hides(self, name):
        return str((self.images.files / name).parent) in self.disk.errors

    def newest(self):
        return newest(self.run_dir) if (self.run_dir / "parts").exists() else {}

    def check(self):
        if self.newest():
            sound(self.run_dir)
            wanted = {f"{name[:-4]}.txt" for name, width in self.newest().items() if width is not None}
            assert labels(self.run_dir) == wanted, self.history

    def _put(self, name, number, stamp):
        self.there[name] = (number, stamp)
        self.first.setdefault(name, (number, stamp))
        put(self.images.files / name, number, stamp)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_to_files_rows_and_labels_are_right_in_the_end(kind, seed, tmp_path, disk):
    life, chance = Life(kind, tmp_path, disk), random.Random(f"{kind} {seed}")
    for _ in range(STEPS):
        life.step(chance)
    life.end()
