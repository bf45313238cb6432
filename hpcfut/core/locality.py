"""Locality: the lease that a task with stored arguments had best be sent under, or wait for.

A task goes to the rank that holds most of its argument bytes, on the host that holds most of them; if that rank cannot
take it, to another rank of the host, which reads them in place. It goes elsewhere once the queue there is more than
``N_LONGER_MAX`` tasks longer than the shortest one: best to a host to which the largest argument has gone with a task
before, because what was read is kept there. How long a queue is, the tasks of this owner tell that are there or wait
for it, and where no lease is open the load that the rank gossips. A rank whose lease is closed for long is not waited
for. Tasks that are to be spread, and those that only one rank can run, are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from hpcfut.core.membership import Membership
from hpcfut.core.ownership import SOURCE, STORED, OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.task import TaskRecord

if TYPE_CHECKING:
    from hpcfut.core.lease import KeyQueue

#: By so many tasks the queue of a rank near the bytes may be longer than the shortest.
N_LONGER_MAX: Final = 2


class Locality:
    """Knows where the bytes of arguments are; see the module's docstring."""

    def __init__(self, references: References, membership: Membership) -> None:
        self._references = references
        self._membership = membership

    def rank_for(self, task: TaskRecord, queue: KeyQueue) -> int:
        """The rank that a task had best go to, or wait for; -1 if that is all the same."""
        if len(queue.candidates) == 1 or queue.is_spread:
            return -1
        holder = self._holder_of_most(task)
        if holder < 0:
            return -1
        lease = queue.leases.get(holder)
        if lease is not None and lease.lease_id in queue.open:
            # The one that was used longest ago has hardly more to do than any other.
            other = next(iter(queue.open.values()))
            n_max = other.n_there + N_LONGER_MAX
            if lease.n_there <= n_max:
                return holder
            hosts, host_of = self._hosts_of_copies(task), self._membership.host_of
            near = (
                lease.rank for lease in queue.open.values() if host_of[lease.rank] in hosts and lease.n_there <= n_max
            )
            return next(near, other.rank) if hosts else other.rank
        return self._rank_on_host_of(holder, queue, task)

    def _holder_of_most(self, task: TaskRecord) -> int:
        on_ranks: dict[int, int] = {}
        for object_id in task.arguments:
            record = self._references.find(object_id)
            assert record is not None
            if record.state != STORED:
                continue
            places = (record.rank,) if record.rank != SOURCE else self._keepers_of(record)
            for rank in places:
                on_ranks[rank] = on_ranks.get(rank, 0) + record.nbytes
        if len(on_ranks) < 2:
            return next(iter(on_ranks), -1)
        host_of = self._membership.host_of
        on_hosts: dict[str, int] = {}
        for rank, nbytes in on_ranks.items():
            on_hosts[host_of[rank]] = on_hosts.get(host_of[rank], 0) + nbytes
        return max(on_ranks, key=lambda rank: (on_hosts[host_of[rank]], on_ranks[rank], -rank))

    def _hosts_of_copies(self, task: TaskRecord) -> Sequence[str]:
        """The hosts to which the largest argument has gone with tasks before; it is read there in place."""
        largest: Record | None = None
        for object_id in task.arguments:
            record = self._references.find(object_id)
            if record is not None and record.state == STORED and (largest is None or record.nbytes > largest.nbytes):
                largest = record
        assert largest is not None
        return tuple(dict.fromkeys(self._membership.host_of[rank] for rank in self._keepers_of(largest)))

    def _keepers_of(self, record: Record) -> Iterable[int]:
        """The ranks that were sent an object before, and have what they have read as long as they have room."""
        return record.keepers or () if isinstance(record, OwnedObject) else ()

    def _candidates_on(self, host: str, queue: KeyQueue) -> tuple[int, ...]:
        near = queue.near.get(host)
        if near is None:
            host_of = self._membership.host_of
            near = queue.near[host] = tuple(rank for rank in queue.candidates if host_of[rank] == host)
        return near

    def _rank_on_host_of(self, holder: int, queue: KeyQueue, task: TaskRecord) -> int:
        """The holder, or the rank of its host, or of one with a copy, with the shortest queue; -1 if none will do."""
        host_of = self._membership.host_of
        host = host_of[holder]
        near = self._candidates_on(host, queue)
        for other in self._hosts_of_copies(task):
            if other != host:
                near += self._candidates_on(other, queue)
        lengths = {rank: length for rank in near if (length := self._length(rank, queue)) >= 0}
        if not lengths:
            return -1
        shortest = min(lengths, key=lambda rank: (lengths[rank], rank))
        if holder in lengths and lengths[holder] <= lengths[shortest] + N_LONGER_MAX:
            return holder
        # Where all ranks are on one host, whoever has room first may read the bytes in place.
        return shortest if len(near) < len(queue.candidates) else -1

    def _length(self, rank: int, queue: KeyQueue) -> int:
        lease = queue.leases.get(rank)
        if lease is None:
            return self._membership.load_of(rank)
        if lease.depth:
            return lease.n_there + len(lease.line)
        return -1 if lease.n_there or lease.is_shut else self._membership.load_of(rank) + len(lease.line)
