"""The config and its JSON Schema are one truth: both take the same documents."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.config.json_schema import json_schema
from farm.config.loading import validate
from farm.config.sections import BARE_KEYS, FarmConfig
from farm.config.types import URL
from farm.errors import ConfigError
from farm.machine.locations import is_url

SCHEMA = jsonschema.Draft202012Validator(json_schema())
MINIMAL = {"source": "/a", "model": "m.pt", "output": "/o"}
NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 0.0, 1.0, 0.5, -0.5, 1.5, 2.0, 1e9, 1e10, 10**20, 1e300, True, False]),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "auto", "cpu", "0", "0,1", "cuda:0", " 1 , cuda:2 ", "0,", "cuda", "auto,0", "person", "0.5", "yes", "null",
         "a:b", "a.b:c", "a", ":", "a:b:c", "a b:c", "s3://b/r", "file:///r", "local://r", "yolo", "local", "ray",
         "process", "thread", "fp16", "torch", "exact", "segment", "1\n", "cpu\n"]
    ),
    st.text(max_size=4),
)  # fmt: skip
SCALARS = st.one_of(st.none(), NUMBERS, TEXTS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(TEXTS, SCALARS, max_size=2))


def sections():
    """Names of sections with the names of their keys."""
    fields = FarmConfig.model_fields.items()
    return {
        name: list(field.annotation.model_fields) for name, field in fields if hasattr(field.annotation, "model_fields")
    }


def section(keys):
    return st.one_of(st.dictionaries(st.one_of(st.sampled_from(keys), TEXTS), VALUES, max_size=3), VALUES)


OTHERS = dict.fromkeys([*FarmConfig.model_fields, "x"], VALUES)
DOCUMENTS = st.fixed_dictionaries({}, optional=OTHERS | {name: section(keys) for name, keys in sections().items()})


def taken(document):
    try:
        validate(document)
    except ConfigError:
        return False
    return True


def agree(document):
    document = json.loads(json.dumps(document))
    assert taken(document) == SCHEMA.is_valid(document), (document, [e.message for e in SCHEMA.iter_errors(document)])
    return taken(document)


@pytest.mark.parametrize(
    ("section", "values", "valid"),
    [
        ("workers", {"count": -1}, False),
        ("workers", {"count": 0}, False),
        ("workers", {"count": 3.0}, True),
        ("workers", {"count": "auto"}, True),
        ("workers", {"count": "4"}, False),
        ("workers", {"devices": "0, cuda:1"}, True),
        ("workers", {"devices": 1}, True),
        ("workers", {"devices": [0, -1]}, False),
        ("workers", {"devices": "gpu"}, False),
        ("workers", None, False),
        ("model", {"weights": "m.pt", "conf": "0.5"}, False),
        ("model", {"weights": "m.pt", "conf": True}, False),
        ("model", {"weights": "m.pt", "conf": 1}, True),
        ("model", {"weights": "m.pt", "wieghts": "n.pt"}, False),
        ("model", {"weights": "m.pt", "factory": "a:b"}, False),
        ("model", {"weights": None, "factory": "a:b"}, True),
        ("model", {"factory": "a.b"}, False),
        ("model", {}, False),
        ("model", "", False),
        ("model", {"weights": "m.pt", "classes": "person"}, True),
        ("model", {"weights": "m.pt", "classes": ["person", 2]}, True),
        ("model", {"weights": "m.pt", "classes": [True]}, False),
        ("model", {"weights": "m.pt", "classes": ""}, False),
        ("model", {"weights": "m.pt", "imgsz": [640]}, False),
        ("model", {"weights": "m.pt", "safe_load": 1}, False),
        ("model", {"weights": "m.pt", "task": "segment", "prompts": ["a"]}, True),
        ("limits", {"item_timeout_s": True}, False),
        ("limits", {"max_failed": 0}, True),
        ("limits", {"max_failed": 1}, True),
        ("limits", {"max_failed": 0.5}, True),
        ("limits", {"max_failed": 1.5}, False),
        ("commit", {"seconds": True}, False),
        ("commit", {"seconds": 0}, False),
        ("output", {"dir": "s3://b/r", "exports": ["yolo"]}, False),
        ("output", {"dir": "s3://b/r", "exports": []}, True),
        ("output", {"dir": "s3://b/r", "exports": None}, False),
        ("output", {"dir": "file:///r", "exports": ["yolo"]}, True),
        ("source", {"path": "/a", "recursive": "yes"}, False),
        ("ray", "auto", True),
        ("engine", "moon", False),
    ],
)
def test_the_verdicts(section, values, valid):
    assert agree({**MINIMAL, section: values}) == valid


@pytest.mark.parametrize(("name", "keys"), sections().items())
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_one_section_at_a_time(name, keys, data):
    """The rest is right, so that the verdict hangs on this section."""
    needed = {BARE_KEYS[name]: MINIMAL[name]} if name in MINIMAL else {}
    values = data.draw(section(keys))
    agree({**MINIMAL, name: values})
    if isinstance(values, dict):
        agree({**MINIMAL, name: {**needed, **values}})


@settings(max_examples=60, deadline=None)
@given(document=DOCUMENTS)
def test_whole_documents(document):
    agree(document)
    agree({**MINIMAL, **document})


@pytest.mark.parametrize("section", ["source", "model", "workers", "limits", "commit", "output", "ray"])
def test_a_typo_is_told_by_its_key(section):
    values = MINIMAL.get(section)
    document = {**MINIMAL, section: {**({BARE_KEYS[section]: values} if values else {}), "tpyo": 1}}
    (error,) = SCHEMA.iter_errors(document)
    assert "'tpyo'" in error.message and list(error.path) == [section]


def test_what_it_is():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("urn:yolo-farm:config:")
    assert '"gt"' not in json.dumps(schema)


@given(
    place=st.one_of(
        st.text(max_size=12), st.sampled_from(["s3://b", "file://x", "local://x", "a\n://b", "file://a://b"])
    )
)
def test_urls_are_those_of_storage(place):
    import re

    assert bool(re.search(URL, place)) == is_url(place)
