"""Footprints: what stored objects take of the stores of ranks while all of them are in memory together.

A task needs all its stored arguments at a time, and a ``get`` all its values. What lies on the host of the reader stays
in the store of its holder, which lends it; what lies on another host is read into the reader's own. Where that is more
than a store has in all, no waiting helps, and whoever asked is told so at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpcfut.core.membership import Membership
from hpcfut.core.ownership import STORED
from hpcfut.core.references import Record, References
from hpcfut.core.task import TaskRecord
from hpcfut.model.failure import FULL, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.roster import RankRecord
from hpcfut.model.segment import NBYTES_ALIGNMENT, nbytes_of_segment
from hpcfut.model.template import RESOURCE_UNIT

#: So many objects are named in a complaint.
_N_NAMED_MAX = 5
_NO_LIMIT = 1 << 62


class Footprints:
    """Knows the stores of all ranks; see the module's docstring."""

    def __init__(self, references: References, membership: Membership) -> None:
        self._find = references.find
        self._host_of = membership.host_of
        #: Room of each rank; without limit where the roster does not say.
        self._stores = [_room_of(record) for record in membership.roster]
        self._nbytes_min = min(self._stores)

    def admit(self, record: RankRecord) -> None:
        """A rank has joined."""
        self._stores.append(_room_of(record))
        self._nbytes_min = min(self._nbytes_min, self._stores[-1])

    def add(self, needs: dict[int, int], record: Record, reader: int) -> bool:
        """Count what a stored object takes, of whose store, for a reader; gives whether that store is too small."""
        rank = self._store_of(record, reader)
        needs[rank] = nbytes = needs.get(rank, 0) + nbytes_of_segment(record.nbytes)
        return nbytes > self._stores[rank]

    def _store_of(self, record: Record, reader: int) -> int:
        """The rank in whose store an object is while it is read; every reader reads a source for itself."""
        host_of, holder = self._host_of, record.rank
        return holder if holder >= 0 and host_of[holder] == host_of[reader] else reader

    def refuse_values(self, object_ids: Sequence[int], reader: int) -> Failure | None:
        """Why the values of these objects can never be with one reader all at once."""
        sentence = self.misfit(object_ids, (reader,))
        if not sentence:
            return None
        return Failure(FULL, f"The {len(object_ids)} values that are wanted at once do not fit: {sentence}")

    def misfit(self, object_ids: Iterable[int], ranks: Iterable[int]) -> str:
        """Why these objects can never be in memory together for a reader on any of these ranks.

        Empty if they can for one of them, as far as is known of those that are pending.
        """
        found = map(self._find, dict.fromkeys(object_ids))
        records = [record for record in found if record is not None and record.state == STORED]
        nbytes = sum(nbytes_of_segment(record.nbytes) for record in records)
        if nbytes <= self._nbytes_min:
            return ""
        worst: list[Record] = []
        rank = -1
        for reader in ranks:
            # Where ranks of a host cannot read each other's memory, all goes into the reader's store.
            if nbytes <= self._stores[reader] or (rank := self._overflown(records, reader)) < 0:
                return ""
            worst = [record for record in records if self._store_of(record, reader) == rank]
        if not worst:  # There is nobody yet.
            return ""
        nbytes = sum(nbytes_of_segment(record.nbytes) for record in worst)
        largest = sorted(worst, key=lambda record: (-record.nbytes, record.object_id))
        named = [
            f"{name_of(record.object_id)} ({record.nbytes} bytes"
            + (f", on rank {record.rank})" if record.rank >= 0 else ")")
            for record in largest[:_N_NAMED_MAX]
        ]
        if len(largest) > _N_NAMED_MAX:
            named.append(f"{len(largest) - _N_NAMED_MAX} more")
        if len(named) == 1:
            what = f"object {named[0]} can never be in memory; it needs"
        else:
            what = f"objects {', '.join(named[:-1])} and {named[-1]} can never be in memory together; they need"
        return (
            f"{what} {nbytes} bytes of the object store of rank {rank}, which has {self._stores[rank]} in all. Use "
            f"smaller objects or fewer at a time, or give each rank a larger store: init(object_store_memory=BYTES)."
        )

    def misfit_of(self, task: TaskRecord, candidates: Sequence[int]) -> Failure | None:
        """Why the arguments of a task can never be in memory together, wherever it runs."""
        sentence = self.misfit(task.arguments, candidates)
        if not sentence:
            return None
        name = f"{name_of(task.task_id)} ({task.template.template.name})"
        return Failure(FULL, f"The arguments of task {name} do not fit: {sentence}")

    def _overflown(self, records: Sequence[Record], reader: int) -> int:
        """A rank whose store is too small for a reader of all these; -1 if all are large enough."""
        needs: dict[int, int] = {}
        return next((self._store_of(record, reader) for record in records if self.add(needs, record, reader)), -1)


def _room_of(record: RankRecord) -> int:
    units = record.resources.get("object_store_memory")
    return _NO_LIMIT if units is None else units // RESOURCE_UNIT & -NBYTES_ALIGNMENT
