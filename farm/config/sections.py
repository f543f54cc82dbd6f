"""The config's sections: what each key is, its type, its default and its description. One frozen pydantic tree.

farm.config.loading makes one of a file, of overrides or of a mapping. The sections that a child needs are passed to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from farm.config.types import (
    FACTORY,
    MAX_PIXELS,
    AutoSwitch,
    Classes,
    Count,
    Devices,
    Part,
    Positive,
    Seconds,
    Share,
    Switch,
)
from farm.machine.locations import is_url


def expanded(value: Any) -> Any:
    """A path that begins with ~ or ~user as the system has it. Every path in a config goes through this."""
    return os.path.expanduser(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else value


def _any_bytes(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A name whose bytes are no UTF-8 is held with surrogates, which pydantic takes for no text."""
    return value if isinstance(value, str) and not value.isascii() else handler(value)


FileName = Annotated[str, WrapValidator(_any_bytes)]
UserPath = Annotated[FileName, BeforeValidator(expanded)]
Auto = Literal["auto"]

STDIN = "-"


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys are errors, and so are inf and nan, which no comparison ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceConfig(Section):
    """Where the images are. `path`: a folder, a glob, a list file, a dataset YAML, or `-` for standard input."""

    path: UserPath = Field(
        min_length=1,
        description="folder, glob, list file (.txt, .csv), Ultralytics dataset YAML, or - for standard input",
    )
    recursive: Switch = Field(True, description="look into sub-folders too")
    split: str = Field("train", description="which split of a dataset YAML to label")
    exclude: Annotated[str | list[FileName], WrapValidator(_any_bytes)] = Field(
        [], description="patterns of files and folders to leave out, as in a .gitignore, relative to the source's root"
    )


class ModelConfig(Section):
    """What labels the images, and the arguments that change labels; names and defaults as in `yolo predict`."""

    weights: Annotated[str | None, WrapValidator(_any_bytes), BeforeValidator(expanded)] = Field(
        None, min_length=1, description="anything YOLO() loads: .pt, .onnx, an OpenVINO folder, a model YAML"
    )
    factory: str | None = Field(
        None,
        json_schema_extra={"pattern": FACTORY},
        description="package.module:function that makes a model of your own, in the worker",
    )
    factory_dir: Annotated[str | None, WrapValidator(_any_bytes), BeforeValidator(expanded)] = Field(
        None, min_length=1, description="folder that its module lies in; null: beside the config file, or Python's path"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")
    task: Literal["detect", "segment", "pose", "obb", "classify"] | None = Field(
        None, description="only where the weights do not say it"
    )
    prompts: list[str] | None = Field(
        None, min_length=1, description="what to look for, in words: for YOLO-World and YOLOE weights"
    )
    imgsz: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="inference size in pixels, or [height, width]; null: the one that the weights were made for"
    )
    conf: Share = Field(0.25, description="lowest confidence kept")
    iou: Share = Field(0.7, description="IoU above which non-maximum suppression drops a box")
    max_det: Positive = Field(300, description="most detections kept per image")
    classes: Classes | None = Field(
        None, description="classes to keep, by number or by name (of the weights): [0, 2], person; null keeps all"
    )
    agnostic_nms: Switch | None = Field(
        None, description="suppress across classes; null: true for YOLOE, false for all others"
    )
    retina_masks: Switch = Field(False, description="segment: masks at the image's own resolution")
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"] = Field(
        "auto",
        description="what executes the network; auto: the fastest that agrees, for .pt files and long runs on CPU",
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(
        "fp32", description="fp16: on CUDA; bf16, int8: with OpenVINO; int8 is calibrated with your images"
    )
    min_agreement: Share = Field(
        0.995, description="share of what torch finds that a backend must find too, on a sample, to be chosen by `auto`"
    )
    decode: Literal["exact", "reduced", "device"] = Field(
        "exact",
        description="reduced: JPEGs far larger than imgsz are decoded at 1/2, 1/4 or 1/8, faster, not to the digit; "
        "device: JPEGs are decoded on CUDA devices by torchcodec, not to the digit either",
    )
    cuda_graphs: AutoSwitch = Field(
        "auto",
        description="full batches of frequent shapes are launched in one call; auto: with torch on CUDA, where equal",
    )
    safe_load: Switch = Field(True, description="refuse weights and model YAML that would run code when loaded")
    autoinstall: Switch = Field(False, description="let Ultralytics pip-install what it misses")

    @model_validator(mode="after")
    def _one_model(self) -> ModelConfig:
        if (self.weights is None) == (self.factory is None):
            raise ValueError("give either `weights` or `factory`")
        if self.factory is not None and not re.search(FACTORY, self.factory):
            raise ValueError(f"`factory` is package.module:function, not {self.factory!r}")
        return self

    @property
    def is_convertible(self) -> bool:
        """May farm choose what executes it? A .pt can be converted; anything else runs as what it is."""
        return self.weights is not None and self.weights.endswith(".pt")


class WorkersConfig(Section):
    """Who labels. `auto` values come from the machine; `farm check` prints what they resolve to."""

    kind: Literal["process", "thread", "locked"] = Field(
        "process", description="process: isolated, its own model; thread: its own model; locked: threads share a model"
    )
    start: Literal["auto", "forkserver", "spawn"] = Field(
        "auto", description="how processes start; auto: forkserver on CPU, spawn with CUDA"
    )
    count: Positive | Auto = Field("auto", description="workers; auto: one per physical core, or two per CUDA device")
    devices: Devices = Field("auto", description="auto, cpu, or a list of CUDA device numbers")
    threads: Positive | Auto = Field("auto", description="threads of each model; auto: 1 on CPU")
    batch: Positive | Auto = Field("auto", description="images per forward pass; auto: 1 on CPU")
    decoders: Positive | Auto = Field("auto", description="decoding threads of each worker")
    recycle_after: Positive | None = Field(None, description="replace a worker after so many images")


class LimitsConfig(Section):
    """When to give up on an image, a worker or the run."""

    attempts: Positive = Field(3, description="tries before an image is quarantined")
    item_timeout_s: Seconds = Field(60, description="longest time one image may take, in seconds")
    max_pixels: Positive = Field(MAX_PIXELS, description="larger images are refused before decoding (Pillow's limit)")
    max_failed: Count | Part | None = Field(
        None,
        description="failed images that are put up with; one more ends the run: a count (0: none, 1: one), or a share "
        "between 0 and 1 (of at least 100 images); null: any number",
    )
    max_restarts: Positive = Field(
        20, description="workers that died, or images that killed one, with none labelled between, that end the run"
    )


class CommitConfig(Section):
    """When results go to disk: after so many images or seconds, whichever comes first."""

    images: Positive = Field(
        2048, description="a part is committed when it has so many images; the batch that makes them so many is in it"
    )
    seconds: Seconds = Field(5, description="longest time a result waits for its commit, in seconds")


class OutputConfig(Section):
    """Where results go."""

    dir: UserPath = Field(
        min_length=1, description="the run directory, or a URL (s3://bucket/run); labelling into it again continues"
    )
    exports: list[Literal["yolo"]] = Field(["yolo"], description="formats written at the end")
    save_conf: Switch = Field(
        False, description="sixth column with the confidence; Ultralytics rejects it in training labels"
    )
    clip: Switch = Field(
        False, description="move corners of oriented boxes into the image; Ultralytics drops images with boxes outside"
    )

    @model_validator(mode="before")
    @classmethod
    def _exports_need_a_disk(cls, data: Any) -> Any:
        """Label files are made on a disk: a URL gets the parts alone."""
        if isinstance(data, dict) and is_url(str(data.get("dir"))):
            if "exports" in data and data["exports"] != []:
                raise ValueError(
                    f"exports are written to a folder of this machine, not to {data['dir']}: "
                    f"leave `output.exports` out, and call `farm export {data['dir']} --to FOLDER` afterwards"
                )
            return {**data, "exports": []}
        return data


class RayConfig(Section):
    """Where Ray is, for `engine: ray`. What farm starts ends with the run; an existing cluster is left as it was."""

    address: str = Field(
        "local",
        min_length=1,
        description="local: start Ray on this machine, for this run; auto: the cluster around; or its host:port",
    )


BARE_KEYS = {"source": "path", "model": "weights", "output": "dir", "ray": "address"}
PATH_KEYS = (("source", "path"), ("model", "weights"), ("model", "factory_dir"), ("output", "dir"))


class FarmConfig(Section):
    """The whole config. A bare string is accepted for `source`, `model` and `output`."""

    source: SourceConfig
    model: ModelConfig
    output: OutputConfig
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    commit: CommitConfig = Field(default_factory=CommitConfig)
    engine: Literal["local", "ray"] = Field("local", description="where workers run: this machine, or a Ray cluster")
    ray: RayConfig = Field(default_factory=RayConfig)
    accept: list[Literal["versions", "source"]] = Field(
        default_factory=list,
        description="what may differ from what a run was begun with: versions of packages, place of the source",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_strings(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: as_section(key, value) for key, value in data.items()}


def as_section(key: str, value: Any) -> Any:
    """A bare string as the section it stands for."""
    return {BARE_KEYS[key]: value} if key in BARE_KEYS and isinstance(value, (str, os.PathLike)) else value
