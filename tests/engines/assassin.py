"""A model for tests: an image with a marked first pixel kills the process that keeps its worker."""

import multiprocessing
import os
import signal

from farm.models.fake import FakeModel


class Assassin(FakeModel):
    def _misbehave(self, blue):
        if blue == self.kill_on:
            os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
            signal.pause()


def make(**args):
    return Assassin(**args)
