"""Leases, as their holder sees them: which ranks may be sent tasks of a scheduling key, and how many at a time.

Theory of operation (after Wang et al., NSDI'21, section 4.1, without a host scheduler)

Every rank grants leases on itself (``grants.py``). An owner keeps one queue per scheduling key and one lease per key
and rank. A lease has a depth, set by the rank that granted it from the time its tasks take: how many tasks of the lease
may be there at a time. Depth 0 means "not now", and the rank will say when. The owner pushes while there is room, and
asks one more rank for a lease whenever a task finds no room and fewer requests than queued tasks are open: first the
least loaded by gossip, then the nearest by rank number, itself included. A request that has not been answered for a
while counts as open no more, so that the next rank is asked; and a rank that has handed the last task back has no room
for long, so that the next one is asked at once. While tasks wait, a lease that was full is filled up only when half of
its tasks have ended, because each frame disturbs a rank that runs tasks. A lease that has had nothing to do for a while
is returned.
"""

from __future__ import annotations

from collections import deque

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.membership import Membership
from hpcfut.core.ownership import STORED
from hpcfut.core.references import References
from hpcfut.core.task import QUEUED, TRANSITIONS, TaskRecord
from hpcfut.core.templates import Templates
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import NO_ID
from hpcfut.model.template import SchedulingKey
from hpcfut.wire.messages import Argument, LeaseGranted, LeaseRequested, LeaseReturned, TaskPushed


class Lease(msgspec.Struct, gc=False, eq=False):
    """The right to run tasks of one key on one rank."""

    lease_id: int
    rank: int
    queue: KeyQueue
    #: Tasks of the lease that may be on the rank at a time; 0 while the rank has no room.
    depth: int = 0
    #: Tasks of the lease that are on the rank.
    n_there: int = 0
    #: With so few there, it is filled up again.
    n_low: int = 0
    idle_since: float = 0.0
    #: Whether it is closed and the last of our tasks there came back, so that the rank has no room for long.
    is_shut: bool = False


class KeyQueue(msgspec.Struct, gc=False, eq=False):
    """The tasks of one scheduling key that wait for a lease, and the leases of the key."""

    key: SchedulingKey
    #: Ranks that can ever run a task of the key.
    candidates: tuple[int, ...]
    tasks: deque[TaskRecord]
    #: Cancelled or inlined tasks leave the queue lazily; this is the number of those that really wait.
    n_queued: int = 0
    leases: dict[int, Lease] = {}
    #: Leases with room, in the order in which they were last used.
    open: dict[int, Lease] = {}
    #: Leases that may open soon: closed, with none of our tasks there. One that was closed because our tasks there take
    #: long, or that is shut, is not one of them.
    n_asking: int = 0
    last: Lease | None = None

    @property
    def is_spread(self) -> bool:
        """Whether the calls shall spread over the ranks."""
        return self.key[3]


class Leases:
    """All leases that this rank holds."""

    def __init__(
        self,
        context: Context,
        references: References,
        transfers: Transfers,
        templates: Templates,
        membership: Membership,
    ) -> None:
        self._context = context
        self._references = references
        self._transfers = transfers
        self._templates = templates
        self._membership = membership
        self._on_push = context.make_table("task", TRANSITIONS).on("push")
        self.queues: dict[SchedulingKey, KeyQueue] = {}
        self.leases: dict[int, Lease] = {}
        self._n_leases = 0
        #: Tasks that wait for a lease, of all keys together.
        self.n_queued = 0
        self.check_at: float | None = None

    def queue_of(self, key: SchedulingKey) -> KeyQueue:
        """The queue of a scheduling key."""
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = KeyQueue(key, self._membership.candidates(key), deque(), 0, {}, {})
        return queue

    # -- tasks -------------------------------------------------------------------------------------------------------

    def enqueue(self, task: TaskRecord, queue: KeyQueue) -> None:
        """A task is ready to run: push it, or queue it and see to it that there will be room."""
        if not queue.n_queued and queue.open:
            self._push(task, queue)
            return
        queue.tasks.append(task)
        queue.n_queued += 1
        self.n_queued += 1
        self._pump(queue)

    def requeue(self, task: TaskRecord, queue: KeyQueue) -> None:
        """A task came back; it goes to the front, because it has waited longest."""
        queue.tasks.appendleft(task)
        queue.n_queued += 1
        self.n_queued += 1

    def take(self, task: TaskRecord) -> None:
        """A queued task is cancelled, or runs on the stack of whoever waits for it."""
        queue = task.template.queue
        assert queue is not None
        queue.n_queued -= 1
        self.n_queued -= 1

    def _push(self, task: TaskRecord, queue: KeyQueue) -> None:
        """Send a task to the rank that was used last, if none of our tasks is there, else to the next in turn."""
        lease = queue.last
        if lease is None or lease.n_there or not lease.depth or queue.is_spread:
            lease = next(iter(queue.open.values()))
        template = task.template
        rank = lease.rank
        if rank not in template.known:
            self._templates.ensure_known(template, rank)
        task.state = self._on_push[task.state]
        task.rank = rank
        task.lease_id = lease.lease_id
        lease.n_there += 1
        queue.last = lease
        if lease.n_there >= lease.depth:
            queue.open.pop(lease.lease_id, None)
        elif len(queue.open) > 1:
            del queue.open[lease.lease_id]
            queue.open[lease.lease_id] = lease
        self._context.send(rank, self.message_of(task))

    def message_of(self, task: TaskRecord) -> TaskPushed:
        """What the executor must be told of a task."""
        template_id = task.template.template.template_id
        if not (task.arguments or task.nested or task.items is not None or len(task.return_ids) > 1):
            return TaskPushed(task.task_id, task.lease_id, template_id, task.payload)
        return TaskPushed(
            task.task_id,
            task.lease_id,
            template_id,
            task.payload,
            self.arguments_of(task) if task.arguments else (),
            task.nested,
            task.return_ids if len(task.return_ids) > 1 else (),
            self._item_ids_of(task) if task.items is not None else (),
        )

    def _item_ids_of(self, task: TaskRecord) -> tuple[int, ...]:
        """Names for a generator's items; those that came in an earlier attempt are made again and thrown away."""
        assert task.items is not None
        return (NO_ID,) * task.n_items + tuple(task.items)[:-1]

    def arguments_of(self, task: TaskRecord) -> tuple[Argument, ...]:
        """The task's arguments, all of them ready, as values or places."""
        arguments = []
        for object_id in task.arguments:
            record = self._references.find(object_id)
            assert record is not None
            if record.state == STORED:
                offset = self._transfers.lend(object_id, task.rank) if record.rank == self._context.rank else -1
                arguments.append(Argument(object_id, None, record.rank, record.nbytes, record.contained, offset))
            else:
                arguments.append(Argument(object_id, record.payload, 0, 0, record.contained))
        return tuple(arguments)

    def _pump(self, queue: KeyQueue) -> None:
        """Push while there is room; ask for more room if tasks are left."""
        tasks = queue.tasks
        while queue.n_queued and queue.open:
            task = tasks.popleft()
            if task.state == QUEUED:
                queue.n_queued -= 1
                self.n_queued -= 1
                self._push(task, queue)
        if not queue.n_queued:
            tasks.clear()
        elif queue.n_asking < queue.n_queued and len(queue.leases) < len(queue.candidates):
            self._request(queue)

    # -- leases ------------------------------------------------------------------------------------------------------

    def _request(self, queue: KeyQueue) -> None:
        rank = self._membership.nearest_idle(queue.candidates, queue.leases)
        self._n_leases += 1
        lease = Lease(self._n_leases, rank, queue)
        self.leases[lease.lease_id] = lease
        queue.leases[rank] = lease
        queue.n_asking += 1
        self._note_idle(lease)
        self._context.send(rank, LeaseRequested(lease.lease_id, queue.key[0]))

    def on_granted(self, message: LeaseGranted) -> None:
        """A rank opens, deepens or closes a lease."""
        lease = self.leases.get(message.lease_id)
        if lease is None:
            self._context.count_stale("grant of a returned lease")
            return
        queue = lease.queue
        lease.n_low = (message.depth + message.n_blocked) // 2
        self._set_depth(lease, message.depth)
        self._pump(queue)
        if queue.is_spread and message.depth and len(queue.leases) < len(queue.candidates):
            # Calls that come one at a time would find room on the first rank for ever.
            self._request(queue)

    def _set_depth(self, lease: Lease, depth: int) -> None:
        queue = lease.queue
        if lease.is_shut:
            lease.is_shut = not depth
        elif not lease.n_there:
            queue.n_asking += (not depth) - (not lease.depth)
        lease.depth = depth
        if lease.n_there < depth:
            queue.open[lease.lease_id] = lease
        else:
            queue.open.pop(lease.lease_id, None)

    def task_left(self, lease_id: int, *, came_back: bool = False) -> None:
        """A task of the lease is on its rank no more."""
        lease = self.leases[lease_id]
        lease.n_there -= 1
        queue = lease.queue
        if lease.n_there < lease.depth and (lease.n_there <= lease.n_low or not queue.n_queued):
            queue.open[lease.lease_id] = lease
            if queue.n_queued:
                self._pump(queue)
        if not lease.n_there:
            lease.is_shut = came_back and not lease.depth
            queue.n_asking += not (lease.depth or lease.is_shut)
            self._note_idle(lease)

    def pump(self, queue: KeyQueue) -> None:
        """Tasks were put back into the queue."""
        self._pump(queue)

    def _note_idle(self, lease: Lease) -> None:
        lease.idle_since = self._context.now
        if self.check_at is None:
            self.check_at = self._context.now + self._context.config.lease_linger_s
            self._context.wake_at(self.check_at)

    def _return(self, lease: Lease) -> None:
        queue = lease.queue
        del self.leases[lease.lease_id]
        del queue.leases[lease.rank]
        queue.open.pop(lease.lease_id, None)
        if not (lease.depth or lease.is_shut):
            queue.n_asking -= 1
        if queue.last is lease:
            queue.last = None
        self._context.send(lease.rank, LeaseReturned(lease.lease_id))

    def tick(self) -> None:
        """Return the leases that have had nothing to do for a while; where tasks wait meanwhile, ask one rank more."""
        now, linger_s = self._context.now, self._context.config.lease_linger_s
        next_at: float | None = None
        for lease in list(self.leases.values()):
            if lease.n_there:
                continue
            queue = lease.queue
            if lease.idle_since + linger_s <= now:
                if not queue.n_queued:
                    self._return(lease)
                    continue
                lease.idle_since = now
                if len(queue.leases) < len(queue.candidates):
                    self._request(queue)
            if next_at is None or lease.idle_since + linger_s < next_at:
                next_at = lease.idle_since + linger_s
        self.check_at = next_at

    def check(self) -> None:
        """Assert what must hold between turns."""
        if self.n_queued != sum(queue.n_queued for queue in self.queues.values()):
            raise InvariantError(f"The queues do not hold the {self.n_queued} tasks that are counted together.")
        for queue in self.queues.values():
            n_queued = len({task.task_id for task in queue.tasks if task.state == QUEUED})
            if n_queued != queue.n_queued:
                raise InvariantError(f"Queue {queue.key} counts {queue.n_queued} tasks and holds {n_queued}.")
            if queue.n_asking != sum(
                not (lease.depth or lease.n_there or lease.is_shut) for lease in queue.leases.values()
            ):
                raise InvariantError(f"Queue {queue.key} counts {queue.n_asking} leases that may open soon.")
            for lease in queue.leases.values():
                has_room = lease.n_there < lease.depth
                if (lease.lease_id in queue.open and not has_room) or (
                    lease.lease_id not in queue.open and has_room and lease.n_there <= lease.n_low
                ):
                    raise InvariantError(f"Lease {lease.lease_id} on rank {lease.rank} is in the wrong list.")
                if queue.n_queued and has_room and lease.n_there <= lease.n_low:
                    raise InvariantError(f"Lease {lease.lease_id} on rank {lease.rank} has room while tasks wait.")
