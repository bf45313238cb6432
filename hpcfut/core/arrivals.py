"""Arrivals: how a rank that is started for a dead one joins a job that goes on meanwhile.

Theory of operation

A replacement has a rank number of its own, the next one; the number of a dead rank stays dead for ever. It takes the
place of a rank of the start (``RankRecord.replaces``), with its resources. Nothing is done together, and nobody stops:

1. Rank 0 has it spawned, and is linked with it by that (``replacements.py`` decides). It *introduces* it to the others,
   one after another: the replacement opens a port, the other connects, and both tell rank 0 when they are linked.
2. Who is linked with a replacement has *admitted* it: knows its record, and can talk to it. It is given no task.
3. When all that live have admitted it, rank 0 says so to the replacement alone, which is *activated*, and says so to
   all. Only now it may be given tasks, and hold or own objects; and whoever names it names it to ranks that know it.

Deaths meanwhile are as any others. A rank that dies before it was linked is unknown to the edge of the replacement, and
a replacement that dies before it was linked to that of others; there, and nowhere else, rank 0 tells of a death, which
is taken as proof at once: nobody waits for, or writes to, a rank that he cannot reach. So all ranks have the same
roster in the end, in which some were never alive for them.

Burials (``deaths.py``) must come to an end with a rank that was not there when others noted a death. Therefore two
ranks that are linked tell each other at once of every death that they have noted, without any object: neither can hold
anything of the other's because of it. And a replacement waits for no notes of deaths that it hears of before it is
activated: nothing that it will own can have been with one who is dead by then.
"""

from __future__ import annotations

from hpcfut.core.burials import Burials
from hpcfut.core.context import Context
from hpcfut.core.effects import DeclareDead, LinkRank, OpenPort, UseLink
from hpcfut.core.events import LinkMade, PortReady
from hpcfut.core.footprints import Footprints
from hpcfut.core.membership import Membership
from hpcfut.core.standstills import Standstills
from hpcfut.core.stranded import Stranded
from hpcfut.core.transfers import Transfers
from hpcfut.model.roster import RankRecord
from hpcfut.wire.joining import (
    DeathTold,
    LinkWanted,
    PortOpened,
    RankActivated,
    RankIntroduced,
    RankLinked,
    ReplacementsOver,
)


class Arrivals:
    """Links, admits and activates; on every rank."""

    def __init__(
        self,
        context: Context,
        membership: Membership,
        burials: Burials,
        transfers: Transfers,
        stranded: Stranded,
        footprints: Footprints,
        standstills: Standstills,
    ) -> None:
        self._context = context
        self._membership = membership
        self._burials = burials
        self._transfers = transfers
        self._stranded = stranded
        self._footprints = footprints
        self._standstills = standstills
        #: Replacements with which this rank is being linked.
        self.introduced: dict[int, RankRecord] = {}

    def on_link_wanted(self, _: int, message: LinkWanted) -> None:
        """Replacement: get ready for a rank."""
        self._context.effects.append(OpenPort(message.rank))

    def on_port_ready(self, event: PortReady) -> None:
        """Replacement: a rank may connect."""
        self._context.send(0, PortOpened(event.rank, event.port))

    def on_introduced(self, _: int, message: RankIntroduced) -> None:
        """There is a replacement."""
        self.introduced[message.record.rank] = message.record
        self._context.effects.append(LinkRank(message.record, message.port))

    def on_link_made(self, event: LinkMade) -> None:
        """This rank can talk to another one, of which one has just arrived."""
        record = self.introduced.pop(event.rank, None)
        if record is not None:
            self.admit(record)
        if event.rank not in self._membership.unlinked:
            self._context.count_stale("link with a rank that is dead")
            return
        self.link(event.rank, is_neighbour=event.is_neighbour)
        self._context.send(0, RankLinked(event.rank))

    def admit(self, record: RankRecord) -> None:
        """The roster grows."""
        self._context.demand_next(record.rank)
        self._context.n_ranks += 1
        self._membership.admit(record)
        self._transfers.readers.note_host(record.host_key)
        self._footprints.admit(record)
        self._standstills.begin_anew()

    def link(self, rank: int, *, is_neighbour: bool) -> None:
        """From now on this rank and that one talk."""
        del self._membership.unlinked[rank]
        self._context.effects.append(UseLink(rank))
        if is_neighbour:
            self._transfers.admit(rank)
        self._burials.tell(rank)

    def is_out_of_reach(self, message: DeathTold) -> bool:
        """A rank is dead that was never linked with this one, as far as rank 0 knows; gives whether that is so."""
        record = message.record
        self.introduced.pop(record.rank, None)
        if record.rank == self._context.n_ranks:
            self.admit(record)
        if record.rank in self._membership.unlinked:
            self._context.effects.append(DeclareDead(record.rank, message.reason))
            return True
        self._context.count_stale("death of a rank that the edge will tell of")
        return False

    def on_all_linked(self) -> None:
        """Replacement: there is nobody left whom it does not know."""
        own = self._context.rank
        self.activate(own)
        for rank in self._membership.alive:
            if rank != own:
                self._context.send(rank, RankActivated())

    def activate(self, rank: int) -> None:
        """A replacement may be given tasks; some wait for it."""
        if rank not in self._membership.joining:
            self._context.count_stale("second activation of a rank")
            return
        self._membership.activate(rank)
        self._stranded.look_again()

    def on_over(self, message: ReplacementsOver) -> None:
        """No task is to wait for a replacement any more."""
        self._membership.why_none_come = message.why
        self._stranded.look_again()
