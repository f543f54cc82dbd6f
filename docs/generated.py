"""The parts of the site that are made from the code: what can be set, and what can be typed.

`PARTS` maps the name in a page's `<!-- generated: name words -->` to the function that gives the Markdown to put there,
which is called with the words.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from farm.cli.parser import make_parser
from farm.config.json_schema import json_schema
from farm.core.schema import TASK_COLUMNS, TASKS, part_schema

OR = " or "

# What can be set: from the JSON Schema that `farm schema` prints, which is made from the pydantic models


def config_reference(section: str = "") -> str:
    """The keys of a section, in the order of the model; without a name those that are in no section."""
    schema = json_schema()
    if not section:
        alone = {name: field for name, field in schema["properties"].items() if _section_of(field, schema) is None}
        return "\n\n".join(_key(name, field, required=False) for name, field in alone.items())
    found = _section_of(schema["properties"][section], schema) or {}
    required = found.get("required", ())
    keys = [_key(f"{section}.{key}", field, key in required) for key, field in found["properties"].items()]
    return "\n\n".join([_marked(found["description"]), *keys])


def _section_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The definition that a key refers to; None where the key has a value of its own."""
    name = field.get("$ref", "").rpartition("/")[2]
    return schema["$defs"].get(name) if name else None


def _key(name: str, field: Mapping[str, Any], required: bool) -> str:
    if required:
        default = "none: it must be set"
    else:
        default = f"`{_value(field['default'] if 'default' in field else _empty(field))}`"
    meaning = _marked(_sentence(field.get("description", "")))
    return f"```{{confval}} {name}\n:type: {in_words(field)}\n:default: {default}\n\n{meaning}\n```"


def _value(value: Any) -> str:
    """As it is written in YAML."""
    if isinstance(value, list | dict):
        return json.dumps(value).replace('"', "")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _empty(field: Mapping[str, Any]) -> Any:
    """The default of a key whose default is made anew for each config."""
    return {"array": [], "object": {}}[field["type"]]


def _sentence(text: str) -> str:
    """With a capital and a full stop, unless it begins with a word that is to be typed."""
    first = text.partition(" ")[0].rstrip(":,")
    text = text if not first.isalpha() or text[first.__len__() :].startswith(":") else text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _marked(text: str) -> str:
    """Asterisks as they are."""
    return re.sub(r"(?<!`)\*(?!`)", r"\\*", text)


def in_words(field: Mapping[str, Any]) -> str:
    """What a key takes."""
    if "anyOf" in field:
        return _list_of(in_words(option) for option in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return _list_of(f"`{choice}`" for choice in field["enum"])
    kinds = field.get("type", "anything")
    if isinstance(kinds, list):
        return _list_of(_kind(kind, field) for kind in kinds)
    return _kind(kinds, field)


def _kind(kind: str, field: Mapping[str, Any]) -> str:
    if kind == "array":
        inner = in_words(field.get("items", {})).removeprefix("a ")
        count = field.get("minItems") if field.get("minItems") == field.get("maxItems") else None
        return f"a list of {f'{count} times ' if count else ''}{inner}"
    if kind in ("integer", "number"):
        return _number("whole number" if kind == "integer" else "number", field)
    return {"string": "text", "boolean": "`true` or `false`", "null": "`null`", "object": "a mapping"}.get(kind, kind)


def _number(kind: str, field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if above is not None and below is not None:
        return f"a {kind} between {_value(above)} and {_value(below)}"
    if low is not None and high is not None:
        return f"a {kind} from {_value(low)} to {_value(high)}"
    if above is not None:
        return f"a {kind} above {_value(above)}"
    return f"a {kind}" + (f" from {_value(low)} on" if low is not None else "")


def _list_of(words: Iterable[str]) -> str:
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)}{OR}{last}" if first else last


# What can be typed: from the parser of the command line


def command_reference() -> str:
    """Every command with its arguments, in the order of `farm --help`."""
    (commands,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return "\n\n".join("\n\n".join(_command(parser)) for parser in commands.choices.values())


def _command(parser: argparse.ArgumentParser, depth: int = 2) -> Iterator[str]:
    yield f"{'#' * depth} {parser.prog}"
    if parser.description:
        yield _escaped(parser.description.partition(" What its exit code means")[0])
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)  # type: ignore[assignment]
    yield f"```text\n{parser.format_usage().removeprefix('usage: ').rstrip()}\n```"
    yield f"```{{program}} {parser.prog}\n```"
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        yield _option(action) if action.option_strings else _argument(action)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help for choice in action._choices_actions}
            for name, below in action.choices.items():
                below.description = below.description or _sentence(summaries[name] or "")
                yield from _command(below, depth + 1)
    if parser.epilog:
        lines = parser.epilog.strip().splitlines()
        yield _escaped(_sentence(lines[0])) if len(lines) == 1 else f"```text\n{parser.epilog.strip()}\n```"


def _option(action: argparse.Action) -> str:
    takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    names = ", ".join(f"{name}{takes}" for name in action.option_strings)
    return f"```{{option}} {names}\n\n{_escaped(_sentence(action.help or ''))}\n```"


def _argument(action: argparse.Action) -> str:
    return f"`{action.metavar or action.dest}`\n: {_escaped(_sentence(action.help or ''))}"


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "\\<").replace("[", "\\[")


# What a part holds: from the schema


def part_types() -> str:
    """Arrow's type of each column, and the tasks whose parts have it."""
    rows = ["| column | Arrow type | may be null | in parts of |", "| --- | --- | --- | --- |"]
    fields: dict[str, pa.Field] = {field.name: field for task in TASKS for field in part_schema(task)}
    for name in sorted(fields, key=_position):
        tasks = [task for task in TASKS if name in part_schema(task).names]
        of = "all" if len(tasks) == len(TASKS) else ", ".join(tasks)
        null = "yes" if fields[name].nullable else "no"
        rows.append(f"| `{name}` | `{_arrow(fields[name].type)}` | {null} | {of} |")
    return "\n".join(rows)


def _position(name: str) -> float:
    """Columns of a task stand after the boxes."""
    common = part_schema("detect").names
    if name in common:
        return common.index(name)
    extra = [field.name for fields in TASK_COLUMNS.values() for field in fields]
    return common.index("boxes") + (extra.index(name) + 1) / (len(extra) + 1)


def _arrow(kind: pa.DataType) -> str:
    return re.sub(r"list<(item|element): ", "list<", str(kind))


PARTS: dict[str, Callable[..., str]] = {
    "config": config_reference,
    "commands": command_reference,
    "part_types": part_types,
}
