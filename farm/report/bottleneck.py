"""Where the time of a run went, and what would make it faster: one sentence. Pure.

Workers' seconds by stage come from their heartbeats. `wait` is a worker's main thread waiting for decoded images,
`idle` its waiting for items; read, decode and prepare run in decoding threads beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

ENOUGH_S = 5.0  # of work; of a shorter run nothing can be said
DECODING = ("read", "decode", "prepare")
MODEL = ("preprocess", "forward", "postprocess", "encode")
LIMIT_SHARE = 0.35  # of the workers' time spent waiting, from which what they wait for is the limit


def bottleneck(
    stage_s: Mapping[str, float], workers: int, decoders: int, cpu: bool, backend: str, precision: str
) -> str:
    """The sentence, or nothing where the run was too short to say. `decoders`: decoding threads of each worker."""
    own = {stage: stage_s.get(stage, 0.0) for stage in (*MODEL, "wait", "send", "idle")}
    total = sum(own.values())
    if total < ENOUGH_S or not workers:
        return ""
    share = {stage: seconds / total for stage, seconds in own.items()}
    if share["send"] > LIMIT_SHARE:
        return f"commit-bound: workers wait {share['send']:.0%} of their time to hand over results; use a faster disk"
    if share["idle"] > LIMIT_SHARE:
        return f"list-bound: workers are idle {share['idle']:.0%} of their time; the source is listed too slowly"
    if share["wait"] > LIMIT_SHARE:
        return _decoding_bound(stage_s, share, workers, decoders, cpu)
    python = share["preprocess"] + share["postprocess"] + share["encode"]
    if python > share["forward"]:
        return (
            f"Python-bound: pre- and postprocessing take {python:.0%} of the workers' time, the network "
            f"{share['forward']:.0%}; use more workers for each device (workers.count)"
        )
    faster = "model.backend=openvino or onnxruntime, " if backend == "torch" else "model.precision=int8, "
    if precision != "fp32":
        faster = ""
    advice = f"{faster}fewer pixels (model.imgsz) or a GPU would help"
    if not cpu:
        advice = "model.precision=fp16 may help" if precision == "fp32" else "this is what the device can do"
    return f"forward-bound: the network takes {share['forward']:.0%} of the workers' time on {backend}; {advice}"


def _decoding_bound(
    stage_s: Mapping[str, float], share: Mapping[str, float], workers: int, decoders: int, cpu: bool
) -> str:
    busy = sum(stage_s.get(stage, 0.0) for stage in DECODING)
    waiting = f"workers wait {share['wait']:.0%} of their time for images"
    if stage_s.get("read", 0.0) > busy / 2:
        return f"read-bound: {waiting}, most of it for the disk; copy the images nearer, or add decoders to read ahead"
    where = "a decoder each, on their own cores" if cpu else f"{workers * decoders} decoding threads in all"
    return (
        f"decode-bound: {waiting} ({where}); add decoders (workers.decoders), or model.decode=reduced if the images "
        f"are far larger than model.imgsz"
    )
