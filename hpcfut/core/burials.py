"""Burials: what the dead had borrowed, from the note of their death to the last one; the rules are in ``deaths.py``."""

from __future__ import annotations

from collections.abc import Iterable

from hpcfut.core.context import Context
from hpcfut.core.membership import Membership
from hpcfut.core.references import References
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.messages import DeathNoted


class Burials:
    """Who has noted which death."""

    def __init__(self, context: Context, references: References, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._references = references
        self._owned = references.ownership.objects
        #: Deaths that this rank knows of, and not yet of all others that they do.
        self.unburied: dict[int, None] = {}
        #: Dead rank → who of those that are alive has noted that; perhaps before this rank.
        self.noted: dict[int, dict[int, None]] = {}

    def note(self, dead: int, covered: Iterable[int]) -> None:
        """Tell every owner what this rank holds because of a dead one; runs here that it called are covered for some.

        Whatever the dead one is to be reported for has been reported.
        """
        for ranks in self.noted.values():
            ranks.pop(dead, None)
        own, borrowed = self._context.rank, self._references.borrowing.objects
        reported = (record.object_id for record in borrowed.values() if record.reports and dead in record.reports)
        held: dict[int, list[int]] = {}
        for object_id in dict.fromkeys((*reported, *covered)):
            record = borrowed.get(object_id)
            if record is not None:
                reports = record.reports = record.reports or {}
                reports.pop(dead, None)
                reports[own] = reports.get(own, 0) + 1
                held.setdefault(owner_of(object_id), []).append(object_id)
        for rank in range(self._context.n_ranks):
            if rank not in self._context.apart and rank not in self._membership.unlinked:
                self._context.send(rank, DeathNoted(dead, tuple(held.get(rank, ()))))
        if own in self._membership.joining:  # Nothing that it will own was ever with a rank that is dead by now.
            self.noted.pop(dead, None)
            self._references.bury({dead: None})
            return
        self.unburied[dead] = None
        self._bury()

    def tell(self, rank: int) -> None:
        """Tell a rank, with which this one has just been linked, of all deaths that have been noted here."""
        for dead in self._membership.deaths:
            self._context.send(rank, DeathNoted(dead, ()))

    def on_noted(self, source: int, message: DeathNoted) -> None:
        """Owner: a rank knows of a death, and what it holds because of it."""
        if not self._context.config.n_respawns_minute_max:  # Else rank 0 may still be about to tell of that rank.
            self._context.demand_rank(message.dead)
        for object_id in message.held:
            self._references.count(object_id, source, source)
        if message.dead in self._references.buried:
            self._context.count_stale("note of a death that is settled")
            return
        self.noted.setdefault(message.dead, {})[source] = None
        self._bury()

    def _bury(self) -> None:
        """Once every live rank has noted every death that is known here, nobody speaks of the dead any more."""
        unburied = self.unburied
        n_others = self._context.n_ranks - len(self._context.apart)
        if not unburied or any(len(self.noted.get(dead, ())) < n_others for dead in unburied):
            return
        self._references.bury(unburied)
        for dead in unburied:
            self.noted.pop(dead, None)
        unburied.clear()

    def check(self) -> None:
        """Assert what must hold between turns."""
        buried = self._references.buried
        apart, own = self._context.apart, self._context.rank
        if any(rank in apart for ranks in self.noted.values() for rank in ranks):
            raise InvariantError(f"Notes of the dead count here, or own ones: {self.noted}.")
        for object_id, owned in self._owned.items():
            if any(rank in apart for rank in (*(owned.askers or ()), *(owned.keepers or ())) if rank != own):
                raise InvariantError(f"The dead wait for object {name_of(object_id)}, or keep it: {owned}.")
            if any(reporter in buried or borrower in buried for reporter, borrower in owned.borrowers or ()):
                raise InvariantError(f"Object {name_of(object_id)} is kept for the dead: {owned}.")
        for borrowed in self._references.borrowing.objects.values():
            if any(rank in apart for rank in borrowed.reports or () if rank != own):
                raise InvariantError(f"Reports of the dead count here: {borrowed}.")
