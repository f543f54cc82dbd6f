"""Every error farm raises on purpose. Imported by all processes; imports nothing of farm.

    FarmError                 root: `exit_code` is what the command line exits with
    ├── ConfigError           2  a config value, key or file is wrong
    ├── SourceError           2  the source does not exist, cannot be read or holds no image
    │   └── SourceLostError   1  the place the images lie in does not answer any more
    ├── ModelError            2  the weights do not exist, do not load or do not fit the arguments
    │   ├── OutOfTimeError    2  weights were not converted in the time that there was
    │   └── WeightsChangedError 2  weights are no longer those that the run was begun with
    ├── OutputError           1  the run directory or temporary files cannot be written, or the disk is full
    │   ├── RunMismatchError  2  the run directory holds work of another model or other arguments
    │   ├── RunLockedError    2  another farm is writing to the run directory
    │   ├── DamagedRunError   1  its run.json is not what a run has written
    │   └── PartError         1  a file in parts/ cannot be used: it is not of this version of farm, or not farm's
    │       ├── TornPartError 1  it is damaged: what it held is labelled again
    │       └── UnreadablePartError 1  nothing is known of it but that it cannot be read now
    ├── SharedMemoryError     1  /dev/shm has no room for the ring, or cannot be used
    ├── WorkerError           1  workers cannot start, or die faster than they label
    ├── CollectorError        1  the collector cannot start, or keeps dying
    ├── NotRunningError       1  no farm is at work where one was to be followed
    ├── TooManyFailures       1  more images failed than limits.max_failed allows
    └── DecodeError           -  one image cannot be read; always caught and written as a failed row

A message says what is wrong and what to change, in one line.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FATAL = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3  # or something of the source could not be looked at
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class FarmError(Exception):
    """Root of the errors that farm raises on purpose."""

    exit_code = EXIT_FATAL


class ConfigError(FarmError):
    """A config file, key or value is wrong."""

    exit_code = EXIT_USAGE


class SourceError(FarmError):
    """The source does not exist, cannot be read or holds no image."""

    exit_code = EXIT_USAGE


class SourceLostError(SourceError):
    """The place that the images lie in does not answer any more. The same command continues when it does."""

    exit_code = EXIT_FATAL


class ModelError(FarmError):
    """The weights do not exist, do not load or do not fit the arguments."""

    exit_code = EXIT_USAGE


class OutOfTimeError(ModelError):
    """Weights were not converted, or the result not compared, in the time that there was."""


class WeightsChangedError(ModelError):
    """The weights are no longer those that the run was begun with."""


class OutputError(FarmError):
    """The run directory cannot be written."""


class RunMismatchError(OutputError):
    """The run directory holds work of another model or other arguments."""

    exit_code = EXIT_USAGE


class RunLockedError(OutputError):
    """Another farm is writing to the run directory."""

    exit_code = EXIT_USAGE


class DamagedRunError(OutputError):
    """run.json is not what a run has written, or cannot be read."""


class PartError(OutputError):
    """A file in parts/ cannot be used: it was not written by farm, or not by this version."""


class TornPartError(PartError):
    """A part is damaged. `damage` says no more than that; the message says what becomes of it."""

    def __init__(self, damage: str) -> None:
        super().__init__(f"{damage}; the next `farm run` sets it aside and labels its images again")
        self.damage = damage


class UnreadablePartError(PartError):
    """A part cannot be read now, by this process; it may be as good as ever."""


class SharedMemoryError(FarmError):
    """Shared memory has no room for the ring."""


class WorkerError(FarmError):
    """Workers cannot start, or die faster than they label."""


class CollectorError(FarmError):
    """The collector cannot start, or keeps dying."""


class NotRunningError(FarmError):
    """No farm is at work where one was to be followed."""


class TooManyFailures(FarmError):
    """More images failed than the config allows."""


class DecodeError(FarmError):
    """One image cannot be read. `stage` names where it failed; the row's error type is `kind`.

    `errno`: the system's number, where it refused.
    """

    def __init__(self, stage: str, kind: str, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.kind = kind
        self.errno = errno
