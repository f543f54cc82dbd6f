"""A process in which command lines of one program run one after another: `python -m tests.parity.commands PROGRAM`.

    yolo   ultralytics.cfg.entrypoint(), which is what the `yolo` executable calls
    farm   farm.cli.entry.main(), which is what `python -m farm` calls

A line of standard input is one command, a JSON list of its words; a line of standard output is its exit code. What the
commands print goes to standard error. Importing torch costs seconds; here it is paid once for all commands.

Last digits depend on the number of threads and on the precision that a runtime chooses by itself. Farm's workers have
one thread on any machine, and compute exports in the precision that they have. So Ultralytics' command line runs here
as on a machine with two cores and no bf16: one thread for torch (`select_device` gives it the cores less one) and for
onnxruntime and OpenVINO, and float32 in OpenVINO. No argument of predict is touched.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

THREADS = 1


def yolo(words: Sequence[str]) -> int:
    from ultralytics.cfg import entrypoint

    sys.argv[:] = ["yolo", *words]  # Ultralytics keeps this very list
    entrypoint()
    return 0


def farm(words: Sequence[str]) -> int:
    from farm.cli import main

    sys.argv[:] = ["farm", *words]
    return main(words)


def limit_ultralytics() -> None:
    """Its runtimes as on a machine of two cores without bf16."""
    import onnxruntime
    import openvino
    from ultralytics.utils import torch_utils

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: Any, sess_options: Any = None, **settings: Any) -> None:
            options = sess_options or onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = THREADS
            super().__init__(path, options, **settings)

    compile_model = openvino.Core.compile_model

    def compile_limited(core: Any, model: Any, device_name: Any = None, config: Any = None, **settings: Any) -> Any:
        limits = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
        return compile_model(core, model, device_name, {**(config or {}), **limits}, **settings)

    torch_utils.NUM_THREADS = THREADS
    onnxruntime.InferenceSession = Session
    openvino.Core.compile_model = compile_limited


def execute(program: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    try:
        return program(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1


def main() -> None:
    name = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what commands print
    if name == "yolo":
        limit_ultralytics()
    for line in sys.stdin:
        code = execute({"yolo": yolo, "farm": farm}[name], json.loads(line))
        sys.stdout.flush()
        print(code, file=answers)


if __name__ == "__main__":
    main()
