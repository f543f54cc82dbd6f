"""The config: one frozen pydantic tree, loaded from YAML and `section.key=value` overrides, validated once.

Read in the supervisor's process only; the sections that a child needs are passed to it. argv is never
read here; of the surroundings only the home folder (`~`) and the working directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    model_validator,
)

from farm.config import factories, yaml_file
from farm.config.misspelt import meant
from farm.config.types import FACTORY, Classes, Count, Devices, Part, Positive, Seconds, Share, Switch
from farm.errors import ConfigError
from farm.machine.filenames import here
from farm.machine.locations import is_url, local_path
from farm.machine.working_directory import in_working_directory


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
    decode: Literal["exact", "reduced"] = Field(
        "exact",
        description="reduced: JPEGs far larger than imgsz are decoded at 1/2, 1/4 or 1/8, faster, not to the digit",
    )
    cuda_graphs: Switch = Field(
        False, description="on CUDA, launch the network in one call for each shape of batch; torch alone"
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
    max_pixels: Positive = Field(178_956_970, description="larger images are refused before decoding (Pillow's limit)")
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


FACTORY_KEY = ("model", "factory")
BARE_KEYS = {"source": "path", "model": "weights", "output": "dir", "ray": "address"}
TAKES = {  # in words, where a type has branches that pydantic would report one by one
    "workers.devices": "must be `auto` or cpu or a list of device numbers",
    "model.imgsz": "must be a whole number of pixels above 0, or [height, width], or null",
    "model.classes": "must be numbers or names of classes, such as [0, 2] or person, or null",
    "limits.max_failed": "must be a count of images (0: none, 1: one), or a share above 0 and below 1, or null",
}
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
        return {key: _section(key, value) for key, value in data.items()}


def _section(key: str, value: Any) -> Any:
    """A bare string as the section it stands for."""
    return {BARE_KEYS[key]: value} if key in BARE_KEYS and isinstance(value, (str, os.PathLike)) else value


def load(path: str | Path | None, overrides: Sequence[str] = (), cwd: str | Path = ".") -> FarmConfig:
    """Config from a YAML file (or none) and overrides; paths resolve against the file, overrides against `cwd`.

    Raises ConfigError with the file, line and nearest valid key.
    """
    data: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    if path is not None:
        in_working_directory(str(path))  # raises where a relative one has nothing to belong to
        data, lines = yaml_file.read(Path(path))
        places = {keys: f"{path}:{line}" for keys, line in lines.items()}
        data = _resolve_paths(data, Path(path).resolve().parent)
    places = _override(data, overrides, cwd, places)
    folders = [Path(path).resolve().parent, cwd] if path is not None else [cwd]
    overridden = any(text.partition("=")[0] == ".".join(FACTORY_KEY) for text in overrides)
    _say_where_the_factory_is(data, reversed(folders) if overridden else folders)
    return validate(data, str(path) if path is not None else None, places)


def from_mapping(data: Mapping[str, Any], overrides: Sequence[str] = (), cwd: str | Path = ".") -> FarmConfig:
    """Config from a mapping and overrides. Raises ConfigError as `load` does."""
    changed = dict(data)
    places = _override(changed, overrides, cwd, {})
    _say_where_the_factory_is(changed, [cwd])
    return validate(changed, None, places)


def _override(
    data: dict[str, Any], overrides: Sequence[str], cwd: str | Path, places: dict[tuple[str, ...], str]
) -> dict[tuple[str, ...], str]:
    """Set them in `data`, one after the other; returns where each key was set then."""
    for override in overrides:
        names = _apply_override(data, override, cwd)
        places = {keys: place for keys, place in places.items() if keys[: len(names)] != names}
        for n in range(1, len(names)):
            places.setdefault(names[:n], f"override {override!r}")
        places[names] = f"override {override!r}"
    return places


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


def _resolve_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Relative paths made absolute against `base`. A bare model name that is no file there stays a name."""
    data = {key: _section(key, value) for key, value in data.items()}
    for section, key in PATH_KEYS:
        value = data.get(section, {}).get(key) if isinstance(data.get(section), dict) else None
        if isinstance(value, str) and value != STDIN and not is_url(value):
            data[section] = {**data[section], key: _absolute(here(value), base, may_be_name=key == "weights")}
    return data


def _absolute(value: str, base: str | Path, may_be_name: bool) -> str:
    """Asks for the working directory only where that is the base of a relative path: it may have been removed."""
    if not value:
        return value  # an unset variable must not become the folder one is in
    place = expanded(local_path(value))
    if may_be_name and os.sep not in value and not os.path.exists(os.path.join(base, place)):
        return value
    return place if os.path.isabs(place) else _below(Path(in_working_directory(str(base))).resolve(), place)


def _below(base: Path, place: str) -> str:
    """`../images` of a folder that has no links in its name is beside it, whatever becomes of the folder's own name."""
    while place == os.pardir or place.startswith(f"{os.pardir}{os.sep}"):
        base, place = base.parent, place[len(os.pardir) :].lstrip(os.sep)
    return os.path.join(base, place) if place else str(base)


def _say_where_the_factory_is(data: dict[str, Any], folders: Iterable[str | Path]) -> None:
    """For the workers, and for whoever tries the failed images again: a run's own config has no file beside it."""
    model = data.get("model")
    if isinstance(model, dict) and isinstance(model.get("factory"), str) and "factory_dir" not in model:
        places = list(_absolute_folders(folders))
        folder = factories.folder_for(model["factory"], places) if places else None
        data["model"] = {**model, **({"factory_dir": folder} if folder else {})}


def _absolute_folders(folders: Iterable[str | Path]) -> Iterator[str]:
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # the working directory was removed: nothing lies there
            yield os.path.abspath(folder)


def _apply_override(data: dict[str, Any], override: str, cwd: str | Path) -> tuple[str, ...]:
    """Set one `section.key=value` in `data`; returns the key as names."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r} is no override; write section.key=value, for example workers.count=4")
    names = key.split(".")
    if len(names) == 1 and names[0] in BARE_KEYS:
        names.append(BARE_KEYS[names[0]])
    value = _parse(text, _annotation(names))
    if tuple(names) in PATH_KEYS and isinstance(value, str) and value != STDIN and not is_url(value):
        value = _absolute(value, cwd, may_be_name=names[-1] == "weights")
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
        value = yaml_file.parse(text)
    except (yaml.YAMLError, RecursionError):
        return text
    return value if str not in options or isinstance(value, list) else text


def _explain(error: ValidationError, origin: str | None, places: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One line per wrong key: where it stands, what is wrong, what would be right."""
    seen = set()
    problems = error.errors(include_url=False)
    for problem in sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden"):  # what else is missing?
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
    if problem["type"] == "invalid_key":
        return _unknown_key((*loc, str(problem["input"])))
    if "_type" in problem["type"] and _is_section(loc):
        text = "text, or " if loc[0] in BARE_KEYS else ""
        return f"`{key}` takes {text}a mapping of {', '.join(_keys_of(loc))} (given: {problem['input']!r})"
    if problem["type"] == "string_type":
        return f"`{key}` takes text, in quotes where it looks like something else (given: {problem['input']!r})"
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
    if ".".join(loc) in TAKES:
        return TAKES[".".join(loc)]
    if get_origin(annotation) is Literal:
        return "must be one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType) and Auto in get_args(annotation):
        return "must be `auto` or a whole number above 0"
    return ""


def _unknown_key(loc: tuple[str, ...]) -> str:
    *parents, key = loc
    valid = _keys_of(parents)
    sections = [name for name in FarmConfig.model_fields if _is_section([name]) and [name] != parents]
    elsewhere = [f"{name}.{inner}" for name in sections for inner in _keys_of([name])]
    elsewhere += sections if parents else ()
    near = meant(key, valid, elsewhere)
    hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(valid)}"
    place = f" in `{'.'.join(parents)}`" if parents else ""
    return f"unknown key `{key}`{place}; {hint}"


def _keys_of(section: Sequence[str]) -> list[str]:
    """The keys that a section has; of the whole config where it is empty."""
    return list(getattr(_annotation(section) if section else FarmConfig, "model_fields", {}))
