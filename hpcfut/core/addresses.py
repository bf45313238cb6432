"""Addresses: the calls of this rank to actors, from submission to the actor's rank.

Theory of operation

A rank that calls an actor asks the actor's owner once where it lives (``ActorAsked``), and is told (``ActorLocated``),
and told again whenever that changes, until the actor is dead for good (``ActorGone``). Calls go straight to the rank of
the actor, and messages between two ranks stay in order; so calls of one caller begin in the order in which they were
made, if they leave in it. A call whose arguments are not ready holds up the later ones of this rank, but for methods
that may begin out of order.

Every call that is sent is answered: it returns, or raises, or is refused (``MethodRefused``) because the actor was not
there any more and the call has not begun; or the rank dies. What was refused, and what may be tried once more, goes
back to its place in the queue. Only when nothing is left of what was sent to where the actor lived before, calls go to
where it lives now: those that are repeated come before those that were made later.

While a call has not ended the actor is held, so that it does not end before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hpcfut.core.address import ASKING, GONE, KNOWN, TRANSITIONS, Address
from hpcfut.core.context import Context
from hpcfut.core.pushes import Pushes
from hpcfut.core.references import References
from hpcfut.core.task import QUEUED, WAITING, TaskRecord
from hpcfut.core.task import TRANSITIONS as TASK_TRANSITIONS
from hpcfut.core.templates import Templates
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.actors import ActorAsked, ActorLocated


class Addresses:
    """The actors that this rank calls; what it does for tasks that are calls is what ``leases.py`` does for others."""

    def __init__(self, context: Context, references: References, transfers: Transfers, templates: Templates) -> None:
        self._context = context
        self._references = references
        self._templates = templates
        self._call_of = Pushes(context, references, transfers).call_of
        self._next = context.make_table("address", TRANSITIONS)
        self._on_push = context.make_table("task", TASK_TRANSITIONS).on("push")
        self.addresses: dict[int, Address] = {}
        #: Fails a call that has not been sent; bound in ``tasks.py``.
        self.fail: Callable[[TaskRecord, Failure], None]

    def of(self, actor_id: int) -> Address:
        """The address of an actor that user code here has a handle on, for one call more."""
        address = self.addresses.get(actor_id)
        if address is None:
            address = self.addresses[actor_id] = Address(actor_id)
            address.state = self._next[address.state, "ask"]
            self._context.send(owner_of(actor_id), ActorAsked(actor_id))
        if not address.n_calls:
            self._references.hold(actor_id)
        address.n_calls += 1
        return address

    def n_calls(self, actor_id: int) -> int:
        """How many calls of this rank the actor has not answered."""
        address = self.addresses.get(actor_id)
        return 0 if address is None else address.n_calls

    # -- calls -------------------------------------------------------------------------------------------------------

    def enqueue(self, task: TaskRecord, address: Address) -> None:
        """Code here has called the actor; the arguments may have to come first."""
        if task.state == QUEUED and address.state == KNOWN and not (address.queue or address.moves_to):
            self._push(task, address)
            return
        address.queue.append(task)
        if address.failure is not None:
            self._give_up(address)
        elif address.state == KNOWN:
            self._flush(address)

    def requeue(self, task: TaskRecord, address: Address) -> None:
        """A call that was sent comes back; the caller calls ``flush`` when all that come back have."""
        address.n_there -= 1
        task.rank = -1
        queue, later = address.queue, deque[TaskRecord]()
        # Ids grow, so that they tell which of two calls was made first.
        while queue and queue[0].task_id < task.task_id:
            later.appendleft(queue.popleft())
        queue.appendleft(task)
        queue.extendleft(later)

    def _push(self, task: TaskRecord, address: Address) -> None:
        template, rank = task.template, address.rank
        if rank not in template.known:
            self._templates.ensure_known(template, rank)
        task.state = self._on_push[task.state]
        task.rank = rank
        address.n_there += 1
        self._context.send(rank, self._call_of(task, address.actor_id))

    def _flush(self, address: Address) -> None:
        """Send what may be sent, in order."""
        queue, waiting = address.queue, deque[TaskRecord]()
        while queue and address.state == KNOWN and not address.moves_to:
            task = queue[0]
            if task.state == WAITING:
                if task.template.template.is_ordered:
                    break
                waiting.append(task)
            queue.popleft()
            if task.state == QUEUED:
                self._push(task, address)
        queue.extendleft(reversed(waiting))

    def flush(self, address: Address) -> None:
        """Calls have come back, or their arguments are ready: send what may be sent now."""
        if address.failure is not None:
            self._give_up(address)
            return
        if address.moves_to and not address.n_there:
            self._move(address, address.moves_to)
        if address.queue:
            self._flush(address)

    def call_ended(self, task: TaskRecord, address: Address) -> None:
        """A call has ended for good, whichever way."""
        address.n_calls -= 1
        if task.rank >= 0:
            address.n_there -= 1
            if address.moves_to and not address.n_there:
                self.flush(address)
        elif address.queue:
            # It had waited, and perhaps others behind it; not now, because this may be in the middle of a flush.
            self._context.put_off.append((self.flush, address))
        if not address.n_calls:
            if address.state == GONE:
                self.addresses.pop(address.actor_id, None)
            self._references.drop(address.actor_id)

    # -- what the owner says -----------------------------------------------------------------------------------------

    def on_located(self, message: ActorLocated) -> None:
        """The owner says where the actor lives now."""
        self._context.demand_rank(message.rank)
        address = self.addresses.get(message.actor_id)
        if address is None or address.state == GONE:
            self._context.count_stale("place of an actor that is gone")
            return
        if message.rank in self._context.apart and message.rank != self._context.rank:
            self._context.count_stale("place of an actor whose rank has died")
            self.lose(address, address.rank)
            return  # The owner will hear of the death, and tell again.
        address.state = self._next[address.state, "locate"]
        if address.n_there:
            address.moves_to = message
            return
        self._move(address, message)
        self._flush(address)

    def _move(self, address: Address, message: ActorLocated) -> None:
        address.rank, address.is_lasting, address.moves_to = message.rank, message.lasting, None

    def end(self, actor_id: int, failure: Failure) -> None:
        """The actor is dead for good, or its owner: what has not been sent fails; its rank tells the rest."""
        address = self.addresses.get(actor_id)
        if address is None or address.state == GONE:
            self._context.count_stale("end of an actor that is gone")
            return
        address.state = self._next[address.state, "end"]
        address.failure, address.moves_to = failure, None
        self._give_up(address)
        if not address.n_calls:
            self.addresses.pop(actor_id, None)

    def _give_up(self, address: Address) -> None:
        """What waits for an actor that is gone fails."""
        queue, address.queue = address.queue, deque()
        assert address.failure is not None
        for task in queue:
            if task.state in (QUEUED, WAITING):
                self.fail(task, address.failure)

    def lose(self, address: Address, rank: int) -> None:
        """The actor is not on that rank any more; its owner will say what has become of it, unless it has."""
        if address.state == KNOWN and address.rank == rank and not address.moves_to:
            address.state = self._next[address.state, "lose"]

    def on_rank_lost(self, dead: int) -> None:
        """A rank is dead: the actors that lived there do so no more."""
        for address in self.addresses.values():
            if address.moves_to and address.moves_to.rank == dead:
                address.moves_to = None
                address.state = self._next[address.state, "lose"]
            self.lose(address, dead)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for address in self.addresses.values():
            name = f"Actor {name_of(address.actor_id)}"
            if address.state == GONE and (address.queue or not address.n_calls):
                raise InvariantError(f"{name} is gone, and not forgotten: {address}.")
            if address.moves_to and not address.n_there:
                raise InvariantError(f"{name} lives elsewhere, and nothing is left where it was: {address}.")
            if address.state == ASKING and address.moves_to:
                raise InvariantError(f"It is and is not known where actor {name} lives: {address}.")
