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

from collections.abc import Callable
from typing import Any

from hpcfut.core.answers import Answers
from hpcfut.core.arrivals import Arrivals
from hpcfut.core.burials import Burials
from hpcfut.core.context import Context, Undelivered
from hpcfut.core.copies import Copies
from hpcfut.core.estates import Estates
from hpcfut.core.events import RankLost
from hpcfut.core.fates import Fates
from hpcfut.core.membership import Membership
from hpcfut.core.orphans import Orphans, Told
from hpcfut.core.recovery import Recovery
from hpcfut.core.references import References
from hpcfut.core.replacements import Replacements
from hpcfut.core.standstills import Standstills
from hpcfut.core.stranded import Stranded
from hpcfut.core.tasks import Tasks
from hpcfut.core.transfers import Transfers
from hpcfut.model.failure import LOST, OWNER_DIED, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.actors import ActorAsked, HandleAsked
from hpcfut.wire.joining import DeathTold
from hpcfut.wire.messages import (
    BorrowAdded,
    BorrowConfirmed,
    DeathNoted,
    LoanRequested,
    LoanReturned,
    ObjectAsked,
    ObjectFailed,
)


class Deaths:
    """The one place that takes a death; it calls the machines in order."""

    def __init__(
        self,
        context: Context,
        membership: Membership,
        references: References,
        answers: Answers,
        copies: Copies,
        transfers: Transfers,
        stranded: Stranded,
        orphans: Orphans,
        recovery: Recovery,
        standstills: Standstills,
        tasks: Tasks,
        fates: Fates,
    ) -> None:
        self._context = context
        self._membership = membership
        self._references = references
        self._answers = answers
        self._stranded = stranded
        self._orphans = orphans
        self._recovery = recovery
        self._standstills = standstills
        self.fates = fates
        self.burials = Burials(context, references, membership)
        self.estates = Estates(context, copies, transfers, references.keepers)
        self.arrivals = Arrivals(context, membership, self.burials, transfers, stranded, tasks.footprints, standstills)
        self.replacements = Replacements(context, membership, self.arrivals)

    def on_rank_lost(self, event: RankLost) -> None:
        """An edge of this rank has proof that a rank is dead."""
        dead, membership = event.rank, self._membership
        if not self._context.config.survives_deaths or dead in (0, self._context.rank) or membership.is_stopping:
            membership.lose(dead, event.reason)
            return
        sentence = membership.note_death(dead, event.reason)
        if not sentence:
            return
        self._context.apart[dead] = None
        # Nothing new goes there.
        tasks = self._stranded.leave(dead)
        self._references.report_covered([(task.arguments, task.nested) for task in tasks], dead)
        self._standstills.begin_anew()
        # What it owned, and what it stored, is waited for anew before any task is tried again that needs it.
        self._recovery.fail_all(dead, self._died)
        self._recovery.lose_all(dead, Failure(LOST, f"{sentence}."))
        self.estates.settle(dead, sentence)
        # First, because some of the tasks may be children of orphans, and are not tried again then.
        self._orphans.forget_owner(dead)
        self._stranded.come_back(tasks)
        self.fates.on_rank_lost(dead, sentence)
        self.burials.note(dead, self._orphans.covered(dead))
        self.replacements.on_death(dead, event.reason)

    def messages(self) -> dict[type, Callable[[int, Any], None]]:
        """What is done about each message of a death, or an arrival."""
        return {
            DeathNoted: self.burials.on_noted,
            Undelivered: self.on_undelivered,
            DeathTold: self.on_death_told,
            **self.replacements.messages(),
        }

    def on_death_told(self, _: int, message: DeathTold) -> None:
        """Rank 0 tells of a death, of which the edge of this rank may have no proof; it hears of it as well."""
        if self.arrivals.is_out_of_reach(message):
            self.on_rank_lost(RankLost(message.record.rank, message.reason))

    def _died(self, object_id: int) -> Failure:
        return Failure(
            OWNER_DIED,
            f"Object {name_of(object_id)} is gone with its owner. {self._membership.obituary(owner_of(object_id))}. "
            f"Values that are to outlive other ranks belong to the driver: let it put them, or call what makes them.",
        )

    def on_undelivered(self, _: int, undelivered: Undelivered) -> None:
        """What this rank would have sent to a dead one: where somebody here waits for an answer, this is it."""
        dead, message = undelivered.rank, undelivered.message
        if isinstance(message, Told):
            self._orphans.on_undelivered(dead, message)
        elif isinstance(message, ObjectAsked):
            self._answers.on_answer(dead, ObjectFailed(message.object_id, self._died(message.object_id)))
        elif isinstance(message, BorrowAdded):
            self._references.on_borrow_confirmed(BorrowConfirmed(message.object_id))
        elif isinstance(message, LoanRequested):
            self.estates.refuse(dead, message.object_id, self._membership.obituary(dead))
        elif isinstance(message, LoanReturned):
            self.estates.note_returned(dead, message.object_id)
        elif isinstance(message, ActorAsked | HandleAsked):
            self.fates.on_undelivered(dead, message)
        else:
            self._context.count_stale("message to a dead rank")

    def check(self) -> None:
        """Assert what must hold between turns."""
        for machine in (self._membership, self._stranded, self._orphans, self.burials, self.estates):
            machine.check()
