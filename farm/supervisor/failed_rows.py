"""Rows of images that were given up on: quarantined, or deleted since an earlier run listed them.

`failed_rows` makes them, for the supervisor, a worker host and the driver of a cluster. `Quarantine` is the
supervisor's: it sends them to the collector, and again to the next one where that dies before they are on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from farm.core.leases import Verdict
from farm.core.outages import Outage
from farm.core.schema import STATUS_FAILED, STATUS_GONE, failed_batch, to_ipc
from farm.ipc import messages
from farm.ipc.messages import pack_seqs
from farm.supervisor.collector_link import CollectorLink
from farm.supervisor.description import Description
from farm.supervisor.lister import VANISHED

NO_WORKER = -1  # in a row that no worker made


def failed_rows(task: str, verdicts: Sequence[Verdict], errors: Sequence[dict[str, str]], index: int) -> pa.RecordBatch:
    """A row for each verdict, with its error (stage, type, message). `index`: of the worker that had them."""
    return failed_batch(
        task,
        [verdict.item.key for verdict in verdicts],
        [verdict.item.path for verdict in verdicts],
        list(errors),
        status=[STATUS_GONE if error is VANISHED else STATUS_FAILED for error in errors],
        attempts=[verdict.attempts for verdict in verdicts],
        worker=index,
    )


class Quarantine:
    """Failed rows on their way to disk, by the number of their item."""

    def __init__(self, link: CollectorLink, description: Description, outages: Outage) -> None:
        self._link = link
        self._description = description
        self._outages = outages
        self._errors: dict[int, dict[str, str]] = {}  # until they are committed
        self._unseen: set[int] = set()  # the collector has not shown their rows yet

    def add(self, verdicts: Sequence[Verdict], error: dict[str, str], index: int) -> None:
        """Write failed rows for items that were given up on."""
        if not verdicts or self._description.task is None:
            return
        seqs = [verdict.item.seq for verdict in verdicts]
        self._outages.done_with(seqs)
        self._unseen.update(seqs)
        self._errors.update(dict.fromkeys(seqs, error))
        batch = failed_rows(self._description.task, verdicts, [self._errors[seq] for seq in seqs], index)
        self._link.tell(messages.Quarantine(pack_seqs(seqs), to_ipc(batch).to_pybytes()))

    def add_again(self, verdicts: Sequence[Verdict]) -> None:
        """Rows that a dead collector had not committed."""
        for verdict in verdicts:
            self.add([verdict], self._errors[verdict.item.seq], NO_WORKER)

    def shown(self, seqs: Iterable[int]) -> None:
        """The collector has shown rows of these items."""
        self._unseen.difference_update(seqs)

    def is_unseen(self, seq: int) -> bool:
        """Whether an item was given up on, and its row has not been shown yet."""
        return seq in self._unseen

    def committed(self, seqs: Iterable[int]) -> None:
        """These items are on disk."""
        for seq in seqs if self._errors else ():
            self._errors.pop(seq, None)
