"""The JSON Schema of the config, for editors: made from farm.config.sections, and the same verdict on every document.

A section that may be a bare string has one schema for both, whose rules for mappings say nothing of text: so a mistake
inside it is told by its key. With two alternative schemas an editor could only say that neither fits.
"""

from __future__ import annotations

from typing import Any

from farm.config.sections import BARE_KEYS, FarmConfig
from farm.config.types import URL
from farm.version import VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ONE_MODEL = [  # of the two, a text
    {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}
    for name, other in (("weights", "factory"), ("factory", "weights"))
]
MAPPING = {"type": "object"}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of what a config file may hold."""
    schema = FarmConfig.model_json_schema()
    for section, key in BARE_KEYS.items():
        definition = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        definition |= {"type": ["string", "object"], "minLength": 1}
        definition["description"] += f" A text stands for `{key}`."
    schema["$defs"]["ModelConfig"] |= {"if": MAPPING, "then": {"oneOf": ONE_MODEL}}
    schema["$defs"]["OutputConfig"] |= {
        "if": {**MAPPING, "required": ["dir"], "properties": {"dir": {"type": "string", "pattern": URL}}},
        "then": {"properties": {"exports": {"maxItems": 0}}},  # which are written to a disk
    }
    return {"$schema": DIALECT, "$id": f"urn:yolo-farm:config:{VERSION}", **schema}
