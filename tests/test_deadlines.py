"""When a worker counts as stuck."""

import pytest

from farm.deadlines import Late, late, stage_of
from farm.heartbeat import DECODING, IDLE, NOTHING, PREDICTING, SENDING


def row(state=PREDICTING, beat=100.0, seq=7, since=100.0, together=1):
    return {"state": state, "beat_s": beat, "oldest_seq": seq, "oldest_since_s": since, "oldest_together": together}


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, None),
        ({"since": 89.0}, Late("predict", 7)),
        ({"since": 89.0, "state": DECODING}, Late("decode", 7)),
        ({"since": 89.0, "together": 4}, None),
        ({"since": 59.0, "together": 4}, Late("predict", None)),
        ({"seq": NOTHING, "since": 0.0}, None),
        ({"beat": 89.0, "seq": NOTHING, "state": SENDING}, Late("send", None)),
        ({"beat": 89.0, "since": 99.0}, Late("predict", 7)),
    ],
    ids=["in time", "busy too long", "decoding too long", "a batch has time for each", "but not for ever",
         "waiting is no work", "frozen", "frozen on an item"],
)  # fmt: skip
def test_verdicts(fields, verdict):
    assert late(row(**fields), now_s=100.0, item_timeout_s=10.0) == verdict


def test_stages():
    assert [stage_of(state) for state in (IDLE, DECODING, PREDICTING, SENDING)] == [
        "predict",
        "decode",
        "predict",
        "send",
    ]
