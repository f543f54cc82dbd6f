"""Where the time of a run went, and what would make it faster: one sentence. Pure.

Workers' seconds by stage come from their heartbeats. `wait` is a worker's main thread waiting for decoded images,
`idle` its waiting for items; read, decode and prepare run in decoding threads beside it. `device` is the time that
batches took on a GPU, by its own clock. Where several processes share it, each one's batches take longer by those of
the others: their sum says no more than how busy it was at most. How busy it was in truth is what its driver says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ENOUGH_S = 5.0  # of work; of a shorter run nothing can be said
DECODING = ("read", "decode", "prepare")
MODEL = ("preprocess", "forward", "postprocess", "encode")
ANEW = "for a new output (another output.dir)"  # what changes labels, or may, this directory refuses
LIMIT_SHARE = 0.35  # of the workers' time spent waiting, from which what they wait for is the limit


@dataclass(frozen=True, slots=True)
class Crew:
    """Who was at work: workers, decoding threads of each, GPUs (0: on the CPU), for how many seconds.

    `devices_busy`: the share of the time in which GPUs computed, by their driver; None where it does not say. `decode`:
    how images were decoded, as the config says it.
    """

    workers: int
    decoders: int
    devices: int
    labelling_s: float
    devices_busy: float | None = None
    decode: str = "exact"

    def busy(self, stage_s: Mapping[str, float]) -> str:
        """How busy decoding threads and GPUs were, in words."""
        decoding = sum(stage_s.get(stage, 0.0) for stage in DECODING) / self.labelling_s if self.labelling_s else 0.0
        threads = self.workers * self.decoders
        words = f"{min(decoding, threads):.1f} of {threads} decoding threads at work"
        if not self.devices or not self.labelling_s:
            return words
        share = self._devices_busy(stage_s)
        return words + (f", {'GPU' if self.devices == 1 else 'GPUs'} {share} busy" if share else "")

    def _devices_busy(self, stage_s: Mapping[str, float]) -> str:
        """In words; nothing where that is not known."""
        if self.devices_busy is not None:
            return f"{self.devices_busy:.0%}"
        share = stage_s.get("device", 0.0) / self.labelling_s / self.devices
        if self.workers <= self.devices:
            return f"{min(1.0, share):.0%}"
        return f"at most {share:.0%}" if 0 < share < 1 else ""


def bottleneck(stage_s: Mapping[str, float], crew: Crew, network: str, faster: str) -> str:
    """The sentence, or nothing where the run was too short to say.

    `network`: what executes it; `faster`: what else could be set for it, as farm.models.backends.faster says it.
    """
    own = {stage: stage_s.get(stage, 0.0) for stage in (*MODEL, "wait", "send", "idle")}
    total = sum(own.values())
    if total < ENOUGH_S or not crew.workers:
        return ""
    share = {stage: seconds / total for stage, seconds in own.items()}
    caller = stage_s.get("caller", 0.0) / crew.labelling_s if crew.labelling_s else 0.0
    if caller > LIMIT_SHARE and share["send"] + share["idle"] > LIMIT_SHARE:
        return f"caller-bound: on_batch takes {caller:.0%} of the time; do less in it, or do it in another thread"
    if share["send"] > LIMIT_SHARE:
        return f"commit-bound: workers wait {share['send']:.0%} of their time to hand over results; use a faster disk"
    if share["idle"] > LIMIT_SHARE:
        return f"list-bound: workers are idle {share['idle']:.0%} of their time; the source is listed too slowly"
    if share["wait"] > LIMIT_SHARE:
        return _decoding_bound(stage_s, share["wait"], crew)
    python = share["preprocess"] + share["postprocess"] + share["encode"]
    if python > share["forward"]:
        return (
            f"Python-bound: pre- and postprocessing take {python:.0%} of the workers' time, the network "
            f"{share['forward']:.0%} ({crew.busy(stage_s)}); use more workers for each device (workers.count)"
        )
    taken = f"the network takes {share['forward']:.0%} of the workers' time on {network}"
    busy = f" ({crew.busy(stage_s)})" if crew.devices else ""
    advice = ", ".join(filter(None, (faster, "fewer pixels (model.imgsz)"))) + ("" if crew.devices else " or a GPU")
    return f"forward-bound: {taken}{busy}; {advice} would help, {ANEW}"


def _decoding_bound(stage_s: Mapping[str, float], waiting: float, crew: Crew) -> str:
    busy = sum(stage_s.get(stage, 0.0) for stage in DECODING)
    seen = f"workers wait {waiting:.0%} of their time for images, {crew.busy(stage_s)}"
    if stage_s.get("read", 0.0) > busy / 2:
        return (
            f"read-bound: {seen}, most of it waiting for the disk; copy the images nearer, or add decoders "
            f"(workers.decoders) to read ahead"
        )
    on_device = "model.decode=device, or " if crew.devices and crew.decode == "exact" else ""
    return (
        f"decode-bound: {seen}; add decoders (workers.decoders) where cores are free, or, {ANEW}, use {on_device}"
        f"model.decode=reduced if the images are far larger than model.imgsz"
    )
