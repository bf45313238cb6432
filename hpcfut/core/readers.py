"""Readers: to which hosts an object has gone, and from whom the next rank that asks for it gets it.

Theory of operation

What many hosts want is not sent by one rank so many times: who has read it serves others. The rank with the primary
copy is asked first, always. It notes the hosts of those who ask, in the order in which they come, and for each of them
one rank that reads for it, its *representative*. Every other rank of such a host is redirected to the representative,
which lends it the bytes. The first ``N_SERVED`` hosts are served by the primary copy, the next by the representatives
of the first, and so on: a tree, in which a host that is wanted before its own bytes have come serves when they have.

Who is redirected waits for another rank, and never in a circle. A host keeps its place for as long as the primary copy
lives, whoever represents it, and a representative waits only for one of an earlier place. A rank that was redirected to
the representative of its own host serves nobody (``transfers.py``); nor does one that waits for room.

A representative keeps its copy, though nobody there wants it any more, until it needs the memory for something else, or
hears that nobody is redirected to it any more, which it does when the primary copy has gone. In the first case it says
so, which makes nobody out of it. So does a rank that was redirected to it in vain, and comes back. That may speak of a
copy that has gone and come again meanwhile; therefore the representative is told, too. Then the host reads twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LOCAL, Copy
from hpcfut.model.ids import owner_of
from hpcfut.wire.messages import CopyGone, RedirectionEnded

#: How many hosts the primary copy serves, and the copy of each representative.
N_SERVED: Final = 2
#: Represents a host whose copies have gone, and stands for the rank with the primary copy.
NOBODY: Final = -1


class Readers:
    """Redirects ranks of other hosts that ask for a primary copy of this rank, and keeps copies for others."""

    def __init__(self, context: Context, copies: Copies, hosts: Sequence[str]) -> None:
        self._context = context
        self._copies = copies
        #: Rank → its host, as a key.
        self._host_of = hosts
        self.are_all_on_one_host = len(dict.fromkeys(hosts)) == 1

    def note_host(self, host: str) -> None:
        """A rank has joined that is on this host."""
        self.are_all_on_one_host = self.are_all_on_one_host and host == self._host_of[0]

    def redirect(self, copy: Copy, reader: int) -> int:
        """The rank that the reader shall ask instead, or ``NOBODY`` if it is to be served here."""
        if copy.readers is None:
            copy.readers = {}
        host = self._host_of[reader]
        representative = copy.readers.get(host, NOBODY)
        if representative not in (NOBODY, reader):
            return representative
        copy.readers[host] = reader
        ranks = list(copy.readers.values())
        place = ranks.index(reader)
        while place >= N_SERVED:
            place = place // N_SERVED - 1
            if ranks[place] != NOBODY:
                return ranks[place]
        return NOBODY

    def are_on_one_host(self, rank: int, other: int) -> bool:
        """Whether two ranks are."""
        return self._host_of[rank] == self._host_of[other]

    def end(self, source: int, message: CopyGone) -> bool:
        """A rank that has read an object from here has it no more; gives whether anybody was redirected to it."""
        rank = message.rank
        copy, host = self._copies.copies.get(message.object_id), self._host_of[rank]
        if copy is None or copy.readers is None or copy.readers.get(host) != rank:
            self._context.count_stale("end of a copy that nobody is redirected to")
            return False
        copy.readers[host] = NOBODY
        if rank != source:
            self._context.send(rank, RedirectionEnded(message.object_id))
        return True

    def forget(self, rank: int) -> None:
        """A rank is dead: it represents no host, and who has read something from it serves nobody in its stead."""
        host = self._host_of[rank]
        for copy in list(self._copies.copies.values()):
            if copy.readers is not None and copy.readers.get(host) == rank:
                copy.readers[host] = NOBODY
            if copy.is_kept and rank == (copy.holder if copy.recipe is None else owner_of(copy.object_id)):
                self.on_redirection_ended(rank, RedirectionEnded(copy.object_id))

    def on_redirection_ended(self, _: int, message: RedirectionEnded) -> None:
        """Nobody else will ask for what was read here."""
        copy = self._copies.copies.get(message.object_id)
        if copy is None or not copy.is_kept:
            self._context.count_stale("end of redirection to a copy that has gone")
            return
        copy.is_kept = False
        if copy.state == LOCAL:
            self._copies.let_go(copy)
