"""Membership: who is in the job, what they can run, how busy they said they were, and who is dead.

The roster is exchanged once at start. Load is gossip: every frame carries the sender's, so it costs no message. A rank
that dies, or sends what cannot be accepted, ends the job, and rank 0 says so: it alone decides, the others tell it.

Where the job survives deaths (``Config.survives_deaths``), that of another rank than 0 ends nothing. Each rank learns
of it by itself, and tells nobody. Tasks are given to the *active* ranks: as many as there are that are no spares, the
first that are alive. So who is active follows from who is dead, and needs no agreement; and who is active stays so.
Replacements for the dead are further ranks, which come last (``arrivals.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, Final

from hpcfut.core.context import Context
from hpcfut.core.effects import AnswerQuery, EndJob
from hpcfut.model.errors import IllegalTransitionError, InvariantError
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, SchedulingKey
from hpcfut.wire.messages import DriverDone, JobEnded, RankFailed
from hpcfut.wire.queries import InventoryAsked, InventoryReported, ResourcesAsked, ResourcesReported

ALIVE: Final = "alive"
STOPPING: Final = "stopping"
DEAD: Final = "dead"

TRANSITIONS: Final = {
    (ALIVE, "stop"): STOPPING,
    (ALIVE, "die"): DEAD,
    (DEAD, "die"): DEAD,
}


class Membership:
    """The ranks of the job, as this one knows them."""

    def __init__(self, context: Context, roster: Sequence[RankRecord], *, is_joining: bool = False) -> None:
        self._context = context
        self._next = context.make_table("membership", TRANSITIONS)
        self.roster = tuple(roster)
        #: Rank → its host, as a key.
        self.host_of = [record.host_key for record in roster]
        #: Last gossip of each rank: runs that it had, running or ready. The own one is asked for when it is wanted.
        self.load = [0] * len(self.roster)
        self.own_load: Callable[[], int] = lambda: 0
        self.states = [ALIVE] * len(self.roster)
        #: Ranks that have arrived and may not be given tasks yet, and those with which this rank cannot talk yet.
        self.joining: dict[int, None] = {}
        self.unlinked: dict[int, None] = {}
        if is_joining:
            self.joining[context.rank] = None
            self.unlinked = dict.fromkeys(rank for rank in range(1, len(self.roster)) if rank != context.rank)
        #: The ranks that are alive, and those of them that may be given tasks, both in order.
        self.alive = tuple(range(len(self.roster)))
        self._n_active = sum(not self._is_called_later(record) for record in roster)
        self.active: tuple[int, ...] = ()
        #: Spares that have become active, and replacements.
        self.called: tuple[int, ...] = ()
        self._candidates: dict[SchedulingKey, tuple[int, ...]] = {}
        self._choose_active()
        #: Ranks whose deaths the job has survived → how that was found out.
        self.deaths: dict[int, str] = {}
        #: Why replacements, which come where ranks are replaced at all, come no more.
        self.why_none_come = ""
        #: Where every rank has a driver: what rank 0 knows of those that have ended.
        self._done: dict[int, DriverDone] = {}
        #: Query → the answers so far, by rank, and who has not answered.
        self._queries: dict[int, tuple[dict[int, Any], dict[int, None]]] = {}

    @property
    def n_ranks(self) -> int:
        """The number of ranks of the job."""
        return len(self.roster)

    @property
    def is_stopping(self) -> bool:
        """Whether the session is over for this rank."""
        return self.states[self._context.rank] != ALIVE

    def candidates(self, key: SchedulingKey) -> tuple[int, ...]:
        """The ranks that can ever run a task of this key; empty if none can."""
        ranks = self._candidates.get(key)
        if ranks is None:
            resources, affinity, is_soft, _ = key
            ranks = able = tuple(rank for rank in self.active if self._has(rank, resources))
            if is_soft:
                # One for a rank that is called later never counts, or tasks that are elsewhere by now would have no
                # business there then.
                counts = affinity in able and not self._is_called_later(self.roster[affinity])
                ranks = (affinity,) if counts else able
            elif affinity >= 0:
                ranks = (affinity,) if affinity in able else ()
            self._candidates[key] = ranks
        return ranks

    def is_awaited(self, key: SchedulingKey) -> bool:
        """Whether a rank may come that can run tasks of this key: a replacement, for a rank that could."""
        resources, affinity, is_soft, _ = key
        if affinity >= 0 and not is_soft:
            return affinity in self.joining and self._has(affinity, resources)
        if not self._context.config.n_respawns_minute_max or self.why_none_come or not self.n_missing:
            return False
        filled = [self.roster[rank].place for rank in self.active]
        places = [record.rank for record in self.roster if record.replaces < 0 and not record.is_spare]
        return any(place not in filled and self._has(place, resources) for place in places)

    @staticmethod
    def _is_called_later(record: RankRecord) -> bool:
        return record.is_spare or record.replaces >= 0

    def _has(self, rank: int, resources: tuple[tuple[str, int], ...]) -> bool:
        has = self.roster[rank].resources
        return all(has.get(name, 0) >= amount for name, amount in resources)

    def nearest_idle(self, candidates: Sequence[int], but_not: Container[int]) -> int:
        """The least loaded candidate; among equals the nearest above the own rank, so that owners do not herd."""
        own, n_ranks, load = self._context.rank, len(self.roster), self.load
        load[own] = self.own_load()
        return min(
            (rank for rank in candidates if rank not in but_not),
            key=lambda rank: (load[rank], (rank - own) % n_ranks),
        )

    def load_of(self, rank: int) -> int:
        """How busy a rank is, by its last gossip."""
        return self.own_load() if rank == self._context.rank else self.load[rank]

    def why_unschedulable(self, name: str, key: SchedulingKey) -> str:
        """The sentence for a task that no rank can ever run."""
        resources, affinity, is_soft, _ = key
        if is_soft:
            affinity = -1
        wanted = ", ".join(f"{resource} {amount / RESOURCE_UNIT:g}" for resource, amount in resources)
        if affinity >= len(self.roster):
            return f"Task {name} is bound to rank {affinity}, but the job has ranks 0 to {len(self.roster) - 1} only."
        if affinity in self.deaths:
            return (
                f"Task {name} is bound to rank {affinity}. {self.obituary(affinity)}. Bind it to another rank, or "
                f"softly, so that it runs elsewhere then."
            )
        if affinity >= 0 and affinity not in self.active:
            return f"Task {name} is bound to rank {affinity}, a spare, which is given no task before others have died."
        had = next((rank for rank in self.deaths if affinity < 0 and self._has(rank, resources)), -1)
        if had >= 0:
            why_none = f"{self.why_none_come} " if self.why_none_come else ""
            return (
                f"Task {name} asks for {wanted}; of the ranks that are left none can ever give it that. "
                f"{self.obituary(had)}; it could. {why_none}Let several ranks have it, or start the job with spares."
            )
        ranks = tuple(self.roster[rank] for rank in self.active) if affinity < 0 else (self.roster[affinity],)
        short = [
            f"{resource} (the most on one rank is {max(r.resources.get(resource, 0) for r in ranks) / RESOURCE_UNIT:g})"
            for resource, amount in resources
            if all(r.resources.get(resource, 0) < amount for r in ranks)
        ] or ["this combination"]
        where = "no rank of the job" if affinity < 0 else f"rank {affinity}"
        remedy = (
            "Start the job with a larger --cpus-per-rank, or ask for less with num_cpus."
            if any(text.startswith("CPU ") for text in short)
            else "Run on hosts with more memory or with fewer ranks on each, or ask for less."
            if any(text.startswith("memory ") for text in short)
            else "Run where ranks have more GPUs, say how many there are with init(num_gpus=...), or ask for less."
            if any(text.startswith("GPU ") for text in short)
            else "Give the ranks more with --resources or init(resources=...), or ask for less."
        )
        return f"Task {name} asks for {wanted}; {where} can ever give it {' and '.join(short)}. {remedy}"

    # -- queries -----------------------------------------------------------------------------------------------------

    def ask(self, query_id: int, question: ResourcesAsked | InventoryAsked) -> None:
        """Somebody here wants to know something of every rank."""
        self._queries[query_id] = {}, dict.fromkeys(rank for rank in self.alive if rank not in self.joining)
        for rank in self._queries[query_id][1]:
            self._context.send(rank, question)

    def on_resources_reported(self, source: int, message: ResourcesReported) -> None:
        """What is free on one rank."""
        self._take(source, message.query_id, message.available)

    def on_inventory_reported(self, source: int, message: InventoryReported) -> None:
        """What one rank holds."""
        self._take(source, message.query_id, message.inventory)

    def _take(self, source: int, query_id: int, answer: Any) -> None:
        query = self._queries.get(query_id)
        if query is None:
            self._context.count_stale("answer to a finished query")
            return
        query[0][source] = answer
        query[1].pop(source, None)
        self._end_if_answered(query_id)

    def _end_if_answered(self, query_id: int) -> None:
        answers, missing = self._queries[query_id]
        if not missing:
            del self._queries[query_id]
            self._context.effects.append(AnswerQuery(query_id, dict(sorted(answers.items()))))

    # -- deaths ------------------------------------------------------------------------------------------------------

    def note_death(self, rank: int, reason: str) -> str:
        """The job goes on without a rank; gives the sentence that says so, without a full stop, or "" if it is old."""
        if not self._is_first_death(rank):
            return ""
        self.deaths[rank] = reason.rstrip(".")
        self.alive = tuple(other for other in self.alive if other != rank)
        self.joining.pop(rank, None)
        self.unlinked.pop(rank, None)
        self._choose_active()
        for query_id, (answers, missing) in list(self._queries.items()):
            answers.pop(rank, None)  # What it had free is no more.
            missing.pop(rank, None)
            self._end_if_answered(query_id)
        return self.obituary(rank)

    def obituary(self, rank: int) -> str:
        """The sentence that says who has died, and how, without a full stop."""
        return f"{self._described(rank)} died: {self.deaths[rank]}"

    def _choose_active(self) -> None:
        """Who may be given tasks follows from who is dead, and who has been activated."""
        self.active = tuple(rank for rank in self.alive if rank not in self.joining)[: self._n_active]
        self.called = tuple(rank for rank in self.active if self._is_called_later(self.roster[rank]))
        self._candidates.clear()

    # -- arrivals ----------------------------------------------------------------------------------------------------

    @property
    def n_missing(self) -> int:
        """How many ranks fewer may be given tasks than at the start.

        A place counts once: of a death whose replacement has come somebody may hear after that.
        """
        return self._n_active - len({self.roster[rank].place for rank in self.active})

    def vacancy(self) -> int:
        """The place of the start that a replacement takes: of a rank that ran tasks, if there is one; the lowest."""
        filled = [self.roster[rank].place for rank in self.alive]
        places = [record for record in self.roster if record.replaces < 0 and record.rank not in filled]
        return min(places, key=lambda record: (record.is_spare, record.rank)).rank

    def admit(self, record: RankRecord) -> None:
        """A replacement has arrived, which may be talked to when it has been linked."""
        self.roster = (*self.roster, record)
        self.host_of.append(record.host_key)
        self.load.append(0)
        self.states.append(ALIVE)
        self.alive = (*self.alive, record.rank)
        self.joining[record.rank] = self.unlinked[record.rank] = None

    def activate(self, rank: int) -> None:
        """It may be given tasks."""
        del self.joining[rank]
        self._choose_active()

    # -- the end -----------------------------------------------------------------------------------------------------

    def stop(self, status: int, failure: str, *, is_final: bool) -> None:
        """Rank 0 (or, when it hears from no one, any rank) ends the session."""
        own = self._context.rank
        if self.is_stopping:
            self._context.count_stale("second end of the session")
            return
        self.states[own] = self._next[self.states[own], "stop"]
        if own == 0:
            for rank in range(1, len(self.roster)):
                if self.states[rank] != DEAD:
                    self._context.send(rank, JobEnded(status, failure, is_final))
        self._context.effects.append(EndJob(status, failure, is_final))

    def end_driver(self, status: int, *, is_final: bool) -> None:
        """The driver of this rank, one of several, has ended."""
        self._context.send(0, DriverDone(status, is_final))

    def on_end(self, source: int, message: JobEnded | RankFailed | DriverDone) -> None:
        """A rank says something that may end the session."""
        if isinstance(message, JobEnded):
            self._on_job_ended(source, message)
        elif isinstance(message, RankFailed):
            self._on_rank_failed(message)
        else:
            self._on_driver_done(source, message)

    def _on_driver_done(self, source: int, message: DriverDone) -> None:
        """Rank 0: a driver has ended; after the last of them the session is over."""
        self._done[source] = message
        if len(self._done) == len(self.roster):
            in_order = [self._done[rank] for rank in range(len(self.roster))]
            status = next((done.status for done in in_order if done.status), 0)
            self.stop(status, "", is_final=all(done.is_final for done in in_order))

    def lose(self, rank: int, reason: str) -> None:
        """An edge of this rank has proof that a rank is dead."""
        if not self._is_first_death(rank):
            return
        sentence = f"{self._described(rank)} died: {reason}"
        if self._context.rank == 0 or rank == 0:
            self.stop(1, sentence, is_final=True)
        else:
            self._context.send(0, RankFailed(rank, sentence))

    def refuse(self, rank: int, reason: str) -> None:
        """A rank has sent what cannot be accepted. Neither it nor this rank, which missed something, can go on."""
        if not self._is_first_death(rank) or self.is_stopping:
            return
        own = self._context.rank
        sentence = f"{self._described(rank)} sent rank {own} something that cannot be accepted. {reason}"
        if own != 0:
            self._context.send(0, RankFailed(rank, sentence))
        self.stop(1, sentence, is_final=True)

    def _on_rank_failed(self, message: RankFailed) -> None:
        """A rank says that it or another cannot go on; the other may be this one."""
        if message.rank != self._context.rank:
            self._is_first_death(message.rank)
        self.stop(1, message.failure, is_final=True)

    def _is_first_death(self, rank: int) -> bool:
        was = self.states[rank]
        self.states[rank] = self._next[was, "die"]
        if was == DEAD:
            self._context.count_stale("second death of a rank")
        return was != DEAD

    def _described(self, rank: int) -> str:
        return f"Rank {rank} on host {self.roster[rank].host} (process {self.roster[rank].pid})"

    def check(self) -> None:
        """Assert what must hold between turns."""
        for query_id, (answers, missing) in self._queries.items():
            if any(rank not in self.alive for rank in (*answers, *missing)) or not missing:
                raise InvariantError(f"Query {query_id} waits for nobody, or has an answer of the dead: {answers}.")

    def _on_job_ended(self, source: int, message: JobEnded) -> None:
        """Rank 0 ends the session."""
        if source != 0:
            raise IllegalTransitionError(f"Rank {source} ended the session, which is for rank 0 to do.")
        self.stop(message.status, message.failure, is_final=message.is_final)
