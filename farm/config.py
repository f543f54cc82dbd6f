"""The config: one frozen pydantic tree, loaded from YAML and `section.key=value` overrides, validated once.

Read in the supervisor's process only; the sections that a child needs are passed to it. Environment and argv are
never read here: the command line hands over what it was given.
"""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from farm.errors import ConfigError
from farm.filenames import here
from farm.storage import is_url


def _no_switch(value: Any) -> Any:
    """Python counts `true` as 1; in a config it is a mistake."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _any_bytes(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A name whose bytes are no UTF-8 is held with surrogates, which pydantic takes for no text."""
    return value if isinstance(value, str) and not value.isascii() else handler(value)


FileName = Annotated[str, WrapValidator(_any_bytes)]
Positive = Annotated[int, BeforeValidator(_no_switch), Field(gt=0)]
Share = Annotated[float, BeforeValidator(_no_switch), Field(ge=0, le=1)]
Seconds = Annotated[float, BeforeValidator(_no_switch), Field(gt=0)]
Auto = Literal["auto"]

STDIN = "-"


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys are errors, and so are inf and nan, which no comparison ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceConfig(Section):
    """Where the images are. `path`: a folder, a glob, a list file, a dataset YAML, or `-` for standard input."""

    path: FileName = Field(
        min_length=1,
        description="folder, glob, list file (.txt, .csv), Ultralytics dataset YAML, or - for standard input",
    )
    recursive: bool = Field(True, description="look into sub-folders too")
    split: str = Field("train", description="which split of a dataset YAML to label")
    exclude: Annotated[str | list[FileName], WrapValidator(_any_bytes)] = Field(
        [], description="patterns of files and folders to leave out, as in a .gitignore, relative to the source's root"
    )


class ModelConfig(Section):
    """What labels the images, and the arguments that change labels; names and defaults as in `yolo predict`."""

    weights: Annotated[str | None, WrapValidator(_any_bytes)] = Field(
        None, min_length=1, description="anything YOLO() loads: .pt, .onnx, an OpenVINO folder, a model YAML"
    )
    factory: str | None = Field(
        None, description="package.module:function that makes a model of your own, in the worker"
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
    classes: list[Annotated[int, Field(ge=0)]] | None = Field(None, description="class ids to keep; null keeps all")
    agnostic_nms: bool | None = Field(
        None, description="suppress across classes; null: true for YOLOE, false for all others"
    )
    retina_masks: bool = Field(False, description="segment: masks at the image's own resolution")
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
    decode: Literal["exact", "reduced"] = Field(
        "exact",
        description="reduced: JPEGs far larger than imgsz are decoded at 1/2, 1/4 or 1/8, faster, not to the digit",
    )
    cuda_graphs: bool = Field(
        False, description="on CUDA, launch the network in one call for each shape of batch; torch alone"
    )
    safe_load: bool = Field(True, description="refuse weights and model YAML that would run code when loaded")
    autoinstall: bool = Field(False, description="let Ultralytics pip-install what it misses")

    @model_validator(mode="after")
    def _one_model(self) -> ModelConfig:
        if (self.weights is None) == (self.factory is None):
            raise ValueError("give either `weights` or `factory`")
        if self.factory is not None and self.factory.count(":") != 1:
            raise ValueError(f"`factory` is package.module:function, not {self.factory!r}")
        return self


class WorkersConfig(Section):
    """Who labels. `auto` values come from the machine; `farm check` prints what they resolve to."""

    kind: Literal["process", "thread", "locked"] = Field(
        "process", description="process: isolated, its own model; thread: its own model; locked: threads share a model"
    )
    start: Literal["auto", "forkserver", "spawn"] = Field(
        "auto", description="how processes start; auto: forkserver on CPU, spawn with CUDA"
    )
    count: Positive | Auto = Field("auto", description="workers; auto: one per physical core, or two per CUDA device")
    devices: Auto | Literal["cpu"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        "auto", description="auto, cpu, or a list of CUDA device numbers"
    )
    threads: Positive | Auto = Field("auto", description="threads of each model; auto: 1 on CPU")
    batch: Positive | Auto = Field("auto", description="images per forward pass; auto: 1 on CPU")
    decoders: Positive | Auto = Field("auto", description="decoding threads of each worker")
    recycle_after: Positive | None = Field(None, description="replace a worker after so many images")

    @field_validator("devices", mode="before")
    @classmethod
    def _device_numbers(cls, value: Any) -> Any:
        """`0`, `"0,1"` and `"cuda:0"` as a list of numbers, as Ultralytics takes them."""
        if isinstance(value, int) and not isinstance(value, bool):
            return [value]
        if isinstance(value, str) and value not in ("auto", "cpu"):
            parts = [part.strip().removeprefix("cuda:") for part in value.split(",")]
            if all(part.isdigit() for part in parts):
                return [int(part) for part in parts]
        return value


class LimitsConfig(Section):
    """When to give up on an image, a worker or the run."""

    attempts: Positive = Field(3, description="tries before an image is quarantined")
    item_timeout_s: Seconds = Field(60, description="longest time one image may take, in seconds")
    max_pixels: Positive = Field(178_956_970, description="larger images are refused before decoding (Pillow's limit)")
    max_failed: Positive | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="failed images that end the run: a count, or a share below 1 (of at least 100 images)"
    )
    max_restarts: Positive = Field(
        20, description="workers that died, or images that killed one, with none labelled between, that end the run"
    )


class CommitConfig(Section):
    """When results go to disk: after so many images or seconds, whichever comes first."""

    images: Positive = Field(2048, description="images per part at most")
    seconds: Seconds = Field(5, description="longest time a result waits for its commit, in seconds")


class OutputConfig(Section):
    """Where results go."""

    dir: FileName = Field(
        min_length=1, description="the run directory, or a URL (s3://bucket/run); labelling into it again continues"
    )
    exports: list[Literal["yolo"]] = Field(["yolo"], description="formats written at the end")
    save_conf: bool = Field(
        False, description="sixth column with the confidence; Ultralytics rejects it in training labels"
    )

    @model_validator(mode="before")
    @classmethod
    def _exports_need_a_disk(cls, data: Any) -> Any:
        """Label files are made on a disk: a URL gets the parts alone."""
        if isinstance(data, dict) and is_url(str(data.get("dir"))):
            if data.get("exports"):
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
PATH_KEYS = (("source", "path"), ("model", "weights"), ("output", "dir"))


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

    @model_validator(mode="before")
    @classmethod
    def _bare_strings(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: _section(key, value) for key, value in data.items()}


def _section(key: str, value: Any) -> Any:
    """A bare string as the section it stands for."""
    return {BARE_KEYS[key]: value} if key in BARE_KEYS and isinstance(value, str) else value


def load(path: str | Path | None, overrides: Sequence[str] = (), cwd: str | Path = ".") -> FarmConfig:
    """Config from a YAML file (or none) and overrides; paths resolve against the file, overrides against `cwd`.

    Raises ConfigError with the file, line and nearest valid key.
    """
    data: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    if path is not None:
        data, lines = _read_yaml(Path(path))
        places = {keys: f"{path}:{line}" for keys, line in lines.items()}
        data = _resolve_paths(data, Path(path).resolve().parent)
    for override in overrides:
        names = _apply_override(data, override, Path(cwd).resolve())
        places = {keys: place for keys, place in places.items() if keys[: len(names)] != names}
        for n in range(1, len(names)):
            places.setdefault(names[:n], f"override {override!r}")
        places[names] = f"override {override!r}"
    return validate(data, str(path) if path is not None else None, places)


def validate(
    data: Mapping[str, Any], origin: str | None = None, places: Mapping[tuple[str, ...], str] | None = None
) -> FarmConfig:
    """Config from a mapping. Raises ConfigError that names every wrong key and what would be right.

    `places` says where each key was set (a line of `origin`, or an override), to be named in the message.
    """
    try:
        return FarmConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, origin, places or {}))) from None


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The file's mapping, and the line (from 1) of every key in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    try:
        data = yaml.safe_load(text)
        lines = dict(_key_lines(yaml.compose(text, Loader=yaml.SafeLoader), ()))
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"config file {path} holds no mapping; begin with `source: /path/to/images`")
    return data, lines


def _key_lines(node: yaml.Node | None, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _key_lines(value, here)


def _resolve_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Relative paths made absolute against `base`. A bare model name that is no file there stays a name."""
    data = {key: _section(key, value) for key, value in data.items()}
    for section, key in PATH_KEYS:
        value = data.get(section, {}).get(key) if isinstance(data.get(section), dict) else None
        if isinstance(value, str) and value != STDIN and not is_url(value):
            data[section] = {**data[section], key: _absolute(here(value), base, may_be_name=section == "model")}
    return data


def _absolute(value: str, base: Path, may_be_name: bool) -> str:
    if not value:
        return value  # an unset variable must not become the folder one is in
    full = os.path.join(base, os.path.expanduser(value))
    return value if may_be_name and os.sep not in value and not os.path.exists(full) else full


def _apply_override(data: dict[str, Any], override: str, cwd: Path) -> tuple[str, ...]:
    """Set one `section.key=value` in `data`; returns the key as names."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r} is no override; write section.key=value, for example workers.count=4")
    names = key.split(".")
    if len(names) == 1 and names[0] in BARE_KEYS:
        names.append(BARE_KEYS[names[0]])
    value = _parse(text, _annotation(names))
    if tuple(names) in PATH_KEYS and isinstance(value, str) and value != STDIN and not is_url(value):
        value = _absolute(value, cwd, may_be_name=names[0] == "model")
    place = data
    for name in names[:-1]:
        child = _section(name, place.get(name))
        place[name] = dict(child) if isinstance(child, dict) else {}
        place = place[name]
    place[names[-1]] = value
    return tuple(names)


def _annotation(names: Sequence[str]) -> Any:
    """The declared type of a dotted key, or None where there is no such key (validation will say so)."""
    model: Any = FarmConfig
    for name in names:
        field = getattr(model, "model_fields", {}).get(name)
        if field is None:
            return None
        model = field.annotation
    return model


def _parse(text: str, annotation: Any) -> Any:
    """The value of an override: text where the key takes only text, or text or a list; YAML otherwise."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if set(options) <= {str, type(None)}:
        return None if type(None) in options and text in ("null", "~") else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if str not in options or isinstance(value, list) else text


def _explain(error: ValidationError, origin: str | None, places: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One line per wrong key: where it stands, what is wrong, what would be right."""
    seen = set()
    for problem in error.errors(include_url=False):
        loc = _keys_only(problem["loc"])
        if (loc, problem["type"] == "extra_forbidden") in seen:  # a union reports each of its branches
            continue
        seen.add((loc, problem["type"] == "extra_forbidden"))
        place = next((places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), origin)
        yield (f"{place}: " if place else "") + _reason(problem, loc)


def _keys_only(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The location as config keys: pydantic adds the branch of a union (`int`, `literal['auto']`)."""
    keys: list[str] = []
    for part in loc:
        if isinstance(part, int) or (_annotation([*keys, part]) is None and keys and not _is_section(keys)):
            break
        keys.append(part)
    return tuple(keys)


def _is_section(keys: Sequence[str]) -> bool:
    return hasattr(_annotation(keys), "model_fields")


def _reason(problem: Any, loc: tuple[str, ...]) -> str:
    key = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(loc)
    if problem["type"] == "missing":
        hint = " (for example output=runs/a)" if loc[:1] == ("output",) else ""
        return f"`{key}` is missing; it must be set{hint}"
    if "_type" in problem["type"] and _is_section(loc):
        return f"`{key}` takes a mapping of {', '.join(_annotation(loc).model_fields)}"
    if problem["type"] == "string_too_short":
        return f"`{key}` is empty; it must be set"
    if problem["type"] == "list_type" and not _takes(loc):
        return f"`{key}` takes a list: write [{problem['input']}]"
    message = problem["msg"].removeprefix("Value error, ")
    takes = _takes(loc)
    given = "" if loc == () or _is_section(loc) else f" (given: {problem['input']!r})"
    return f"`{key}`: {takes or message}{given}" if key else message


def _takes(loc: tuple[str, ...]) -> str:
    """What a key takes, where its type is a choice that pydantic would report branch by branch."""
    annotation = _annotation(loc)
    if get_origin(annotation) is Literal:
        return "must be one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType) and Auto in get_args(annotation):
        return "must be `auto` or " + (
            "cpu or a list of device numbers" if loc[-1] == "devices" else "a whole number above 0"
        )
    if loc[-1:] == ("imgsz",):
        return "must be a whole number of pixels above 0, or [height, width], or null"
    return ""


def _unknown_key(loc: tuple[str, ...]) -> str:
    *parents, key = loc
    model = _annotation(parents) if parents else FarmConfig
    valid = list(getattr(model, "model_fields", {}))
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    elsewhere = [f"{name}.{key}" for name in FarmConfig.model_fields if _annotation([name, key]) is not None]
    hint = f"did you mean `{near[0]}`?" if near else f"did you mean `{elsewhere[0]}`?" if elsewhere else ""
    place = f" in `{'.'.join(parents)}`" if parents else ""
    return f"unknown key `{key}`{place}; {hint or 'valid keys: ' + ', '.join(valid)}"


def json_schema() -> dict[str, Any]:
    """JSON Schema of the config, for editors; bare strings are allowed where `load` allows them."""
    schema = FarmConfig.model_json_schema()
    for section in BARE_KEYS:
        schema["properties"][section] = {"anyOf": [{"type": "string"}, schema["properties"][section]]}
    return schema
