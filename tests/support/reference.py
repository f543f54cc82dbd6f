"""Label files of Ultralytics itself, written by a process of its own: `yolo predict batch=1 save_txt=True`.

python reference.py WEIGHTS SOURCE OUTPUT '{"key": value}'   With one thread, as a worker has, whatever the machine.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    weights, source, output, arguments = sys.argv[1:]
    import torch
    from ultralytics import YOLO
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = 1  # what select_device("cpu") sets; on two cores it is one by itself
    torch.set_num_threads(1)
    place = {"project": str(Path(output).parent), "name": Path(output).name, "exist_ok": True}
    settings = {"batch": 1, "device": "cpu", "save": False, "save_txt": True, "verbose": False, "stream": True}
    found = 0
    for result in YOLO(weights).predict(source, **settings, **json.loads(arguments), **place):
        found += len(result)
    print(found)


if __name__ == "__main__":
    main()
