"""A config file as data, with the line of every key. Read in the supervisor's process, for farm.config.loading.

YAML as PyYAML reads it, but for three things: a key may be set once, numbers may be written as 1e-3 (as in YAML 1.2 and
in every editor), and nothing may contain itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from farm.errors import ConfigError
from farm.machine.misnamed import did_you_mean

Lines = dict[tuple[str, ...], int]  # from 1, by the names of a key from the outermost on
EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
SUFFIXES = (".yaml", ".yml")
TOO_DEEP = "it is nested too deeply, or contains itself"


class _Loader(yaml.SafeLoader):
    """PyYAML's, which is of YAML 1.1: for that 1e-3 is text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def parse(text: str) -> Any:
    """The value of a piece of YAML. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


def read(path: Path) -> tuple[dict[str, Any], Lines]:
    """The file's mapping, and the line of every key in it. Raises ConfigError with what is wrong, and in which line."""
    text = _text_of(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: Lines = {}
        for keys, line in _keys(node):
            if keys in lines:
                key = ".".join(keys)
                raise ConfigError(f"{path}:{line}: `{key}` is set twice, in lines {lines[keys]} and {line}; keep one")
            lines[keys] = line
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"config file {path} is no config: {TOO_DEEP}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"config file {path} holds no mapping; begin with `source: /path/to/images`")
    return data, lines


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist{did_you_mean(path, SUFFIXES)}") from None
    except IsADirectoryError:
        raise ConfigError(f"config file {path} is a folder; to label what is in it: source={path}") from None
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"config file {path} is no text in UTF-8; an image or a list is given as source={path}"
        ) from None


def _keys(node: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key with its line, in the order of the file; more than once where it is set more than once.

    Of what several aliases stand for, once. Raises RecursionError where one stands for what it lies in.
    """
    walked: set[int] = set()
    around: list[yaml.Node] = []

    def walk(node: yaml.Node | None, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        if any(node is outer for outer in around):
            raise RecursionError
        if not isinstance(node, yaml.CollectionNode) or id(node) in walked:
            return
        walked.add(id(node))
        around.append(node)
        for number, child in enumerate(node.value):
            key, value = child if isinstance(node, yaml.MappingNode) else (None, child)
            here = (*at, str(number) if key is None else str(key.value))
            if key is not None:
                yield here, key.start_mark.line + 1
            yield from walk(value, here)
        around.pop()

    return walk(node, ())
