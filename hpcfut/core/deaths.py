"""Deaths: what this rank does when another one dies, and the job goes on without it.

Theory of operation

Each rank learns of each death from its own MPI, in its own time; from then on no frame of the dead comes, and none goes
there. Nobody announces a death, and no step is taken together. What the dead would have done, and somebody here waits
for, this rank does in its stead: what has been asked of it is answered at once, when the death is heard of
(``on_rank_lost``), and whatever is sent to it afterwards comes back (``Undelivered``) and is answered in the same way.
So no machine asks whether a rank lives before it sends, and nobody waits for a dead rank for ever.

Objects that it owned fail here (``OWNER_DIED``), wherever their bytes are, because only their owner could say who else
holds them. Objects of this rank that it stored are made again. Tasks that it ran come back; what it had called ends.

What it borrowed is the hard part (``borrowing.py`` has the rules). Three things may be half done when a rank *d* dies:
it has reported a borrower, and its report has not arrived; it has handed a ref on, and had not reported that yet; it
was covered by a caller whose task it ran, and has handed refs on meanwhile. Therefore:

1. Whose tasks were at *d* reports *d* as a borrower of all that these were covered for (``References.report_covered``).
2. Then each rank *s* tells every other live one, as an owner, that it knows of the death (``DeathNoted``), and which of
   that owner's objects it holds that *d* has reported to it, or that a run here, called by *d*, is covered for. The
   owner counts *s* as having reported itself for each, and *s* counts the same in place of *d*'s reports.
3. An owner keeps every entry that names a dead rank, as reporter or borrower, until each live rank has noted each death
   that it knows of itself. Then it *buries* them: it drops these entries, and collects what nobody else holds.

Per pair of ranks messages stay in order, so after its note a rank speaks of *d* no more but in reports of a borrower
that cannot have heard of anything; these are ignored. Why for all deaths together: a ref that went from *c* to *d* to
*s* may be known to the owner under the name of *c* alone. If *d* lives, it names the ref when it notes the death of
*c*; if it is dead as well, *s* names it when it notes that of *d*.

What is not promised: that an object outlives its owner; that a task, or a generator, that was at a dead rank had no
effect before it runs once more.
"""

from __future__ import annotations

from hpcfut.core.context import Context, Undelivered
from hpcfut.core.events import RankLost
from hpcfut.core.membership import Membership
from hpcfut.core.orphans import Orphans, Told
from hpcfut.core.standstills import Standstills
from hpcfut.core.stranded import Stranded
from hpcfut.wire.messages import DeathNoted


class Deaths:
    """The one place that takes ``RankLost``; it calls the machines in order."""

    def __init__(
        self,
        context: Context,
        membership: Membership,
        stranded: Stranded,
        orphans: Orphans,
        standstills: Standstills,
    ) -> None:
        self._context = context
        self._membership = membership
        self._stranded = stranded
        self._orphans = orphans
        self._standstills = standstills
        #: Why each dead rank is said to be dead.
        self._sentences: dict[int, str] = {}

    def on_rank_lost(self, event: RankLost) -> None:
        """An edge of this rank has proof that a rank is dead."""
        rank, membership = event.rank, self._membership
        if not self._context.config.survives_deaths or rank in (0, self._context.rank) or membership.is_stopping:
            membership.lose(rank, event.reason)
            return
        sentence = membership.note_death(rank, event.reason)
        if not sentence:
            return
        self._sentences[rank] = sentence
        self._context.apart[rank] = None
        # 1. Nothing new goes there.
        tasks = self._stranded.leave(rank)
        self._standstills.begin_anew()
        # 2. Objects that it owned, and objects of this rank that it stored; loans and reads, to and from it.
        # 3. Tasks that were there come back; what it has called here ends, and so do its leases here and its templates.
        self._stranded.come_back(tasks)
        self._orphans.forget_owner(rank)
        # 4. Who holds what because of it: the note to every other live rank.

    def on_undelivered(self, _: int, undelivered: Undelivered) -> None:
        """What this rank would have sent to a dead one: where somebody waits for an answer, here it is."""
        rank, message = undelivered.rank, undelivered.message
        if isinstance(message, Told):
            self._orphans.on_undelivered(rank, message)
        else:
            self._context.count_stale("message to a dead rank")

    def on_noted(self, source: int, message: DeathNoted) -> None:
        """A rank knows of a death, perhaps before this one does."""
