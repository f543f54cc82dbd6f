"""What a run may go on with: what it was begun with, against what it would go on with now. Pure.

A run directory holds the work of one fingerprint (farm.engines.fingerprint). Each entry is compared, for the reason in
RULES; a difference is refused, unless it is one that a user may accept by a word of the config (`accept`), or did
before: versions with which work was done already stay accepted. What was accepted is written into run.json (`history`).

A fingerprint of an older farm lacks some entries. Of an argument that it did not have, the work was done with its
default; of anything else that it did not write down nothing is known, and nothing is refused for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from farm.config.sections import ModelConfig

VERSIONS, SOURCE = "versions", "source"  # words of `accept`

SOURCE_ROOT = "source root"
WEIGHTS_DIGEST = "weights digest"
CONVERSION = "conversion"
MODEL = "model."  # what the names of the model's arguments begin with
BACKEND = "model.backend"
THREADS = "workers.threads"
DEVICE = "device"
VERSION = " version"  # what the names of packages end with
HISTORY = "history"  # in run.json
HEX_DIGEST = re.compile(r"^[0-9a-f]{64}$")
SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Rule:
    """Why an entry is compared, and the word of `accept` that takes a difference; None where none does."""

    why: str
    word: str | None = None


RULES: dict[str, Rule] = {
    WEIGHTS_DIGEST: Rule("other weights are another model"),
    MODEL: Rule("an argument that changes labels"),
    BACKEND: Rule("each backend rounds in its own way"),
    CONVERSION: Rule("another calibration finds other boxes"),
    THREADS: Rule("torch's last digits change with it"),
    DEVICE: Rule("a GPU rounds differently"),
    SOURCE_ROOT: Rule("paths and keys are relative to it: elsewhere they may mean other images", SOURCE),
    VERSION: Rule("another version may decode, scale or predict differently", VERSIONS),
}
"""By name; MODEL stands for all arguments of the model, VERSION for all packages."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry that was something else when the work in the directory was done."""

    name: str
    before: Any
    now: Any

    @property
    def word(self) -> str | None:
        """The word of `accept` that takes it."""
        return rule_of(self.name).word


def rule_of(name: str) -> Rule:
    """The rule for an entry of a fingerprint."""
    if name in RULES:
        return RULES[name]
    return RULES[VERSION if name.endswith(VERSION) else MODEL]


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    implied: Set[str] = frozenset(),
    resolved: Set[str] = frozenset(),
) -> list[Difference]:
    """What differs, other weights first.

    `implied`: entries that follow from other entries, and may differ. `resolved`: those that the weights gave,
    which are not worth a word where the weights are others.
    """
    names = {name for name in {*before, *now} - implied if _differs(name, before, now)}
    if WEIGHTS_DIGEST in names:
        names -= resolved
    ordered = sorted(names, key=lambda name: (name != WEIGHTS_DIGEST, name))
    return [Difference(name, before.get(name), now.get(name)) for name in ordered]


def refused(
    found: Iterable[Difference], accepted: Set[str], history: Sequence[Mapping[str, Any]] = ()
) -> list[Difference]:
    """Those that nobody has accepted, now or (of versions) before. `accepted`: words of `accept`."""
    return [
        difference for difference in found if difference.word not in accepted and not _is_known(difference, history)
    ]


def in_words(wrong: Sequence[Difference], moved: str) -> str:
    """What is refused and what to do, in a line. `moved`: what was found where the source is now, in words."""
    said = [f"{each.name} was {_shown(each.before)}, now {_shown(each.now)}" for each in wrong]
    if moved:
        said = [
            f"{text}, where {moved}" if each.name == SOURCE_ROOT else text
            for text, each in zip(said, wrong, strict=True)
        ]
    words = sorted({each.word for each in wrong if each.word})
    names = ", ".join(each.name for each in wrong if each.word)
    accepting = f"; `accept: [{', '.join(words)}]` in the config goes on in spite of {names}" if words else ""
    return f"{'; '.join(said)}. Set them back to continue it, or give another output.dir{accepting}"


def history_with(
    history: Sequence[Mapping[str, Any]], found: Iterable[Difference], accepted: Set[str], date: str
) -> list[dict[str, Any]]:
    """The history with what has been accepted now; a version that is in it already is not written down again."""
    news = [
        {
            "date": date,
            "what": difference.name,
            "from": difference.before,
            "to": difference.now,
            "by": f"accept: {difference.word}" if difference.word in accepted else "its images were found again",
        }
        for difference in found
        if difference.word is not None and not _is_known(difference, history)
    ]
    return [*map(dict, history), *news]


def _is_known(difference: Difference, history: Sequence[Mapping[str, Any]]) -> bool:
    """Is it a version that was accepted before?"""
    return difference.word == VERSIONS and difference.now in _known(difference.name, history)


def _shown(value: Any) -> str:
    """A value of a fingerprint; of a digest its beginning."""
    return value[:SHOWN_DIGITS] if isinstance(value, str) and HEX_DIGEST.match(value) else repr(value)


def _differs(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if name.endswith(VERSION):  # packages of a backend are compared where the backend is the same
        return name in before and name in now and before[name] != now[name]
    if name in before or name in (WEIGHTS_DIGEST, SOURCE_ROOT, CONVERSION):
        return bool(before.get(name) != now.get(name))
    field = ModelConfig.model_fields.get(name.removeprefix(MODEL)) if name.startswith(MODEL) else None
    default = field.get_default(call_default_factory=True) if field is not None else None
    return default is not None and bool(default != now[name])


def _known(name: str, history: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Values of an entry with which there is work in the directory, by its history."""
    return [change.get(end) for change in history if change.get("what") == name for end in ("from", "to")]
