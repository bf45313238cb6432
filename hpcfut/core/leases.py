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

A task with stored arguments is sent near them (``locality.py`` says where). If that lease has no room, the task waits
in its line. With room again the lease takes the older of what waits in its line and what waits for any; another lease
takes from a line that is much longer than its own queue. A line ends, and its tasks go anywhere, when its lease is
closed, or has not opened in the time after which tasks are handed back. For the next task of a lease that is full,
arguments from other hosts are fetched ahead (``ahead.py``).
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.ahead import Ahead
from hpcfut.core.context import Context
from hpcfut.core.lease import KeyQueue, Lease
from hpcfut.core.locality import N_LONGER_MAX, Locality
from hpcfut.core.membership import Membership
from hpcfut.core.pushes import Pushes
from hpcfut.core.references import References
from hpcfut.core.task import QUEUED, TRANSITIONS, TaskRecord
from hpcfut.core.templates import Templates
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.template import SchedulingKey
from hpcfut.wire.messages import LeaseGranted, LeaseRequested, LeaseReturned


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
        self._templates = templates
        self._membership = membership
        self._locality = Locality(references, membership)
        self._has_other_hosts = not transfers.readers.are_all_on_one_host
        self._ahead = Ahead(context, references, membership)
        #: What the executor is told of a task.
        self.message_of = Pushes(context, references, transfers).message_of
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
            queue = self.queues[key] = KeyQueue(key, self._membership.candidates(key), deque())
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

    def enqueue_near(self, task: TaskRecord, queue: KeyQueue) -> None:
        """The same for a task that may have stored arguments."""
        queue.is_far = self._has_other_hosts
        rank = self._locality.rank_for(task, queue)
        if rank < 0:
            self.enqueue(task, queue)
        else:
            self._enqueue_for(task, queue, rank)
        if queue.unnamed and queue.n_queued:
            self._ahead.look(queue)

    def _enqueue_for(self, task: TaskRecord, queue: KeyQueue, rank: int) -> None:
        lease = queue.leases.get(rank) or self._request(queue, rank)
        if lease.lease_id in queue.open:
            self._push(task, queue, lease)
            return
        if not lease.line:
            queue.lines[lease.lease_id] = lease
            lease.lined_since = self._context.now
            if not lease.depth:
                self._check_by(self._context.now + self._context.config.hand_back_after_s)
        lease.line.append(task)
        task.awaits = rank
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
        if queue.ahead:
            self._ahead.forget(queue, task)

    def _push(self, task: TaskRecord, queue: KeyQueue, lease: Lease | None = None) -> None:
        """Send a task to the rank that was used last, if none of our tasks is there, else to the next in turn."""
        if lease is None:
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
            if queue.is_far:
                self._ahead.name_for(lease)
        elif len(queue.open) > 1:
            del queue.open[lease.lease_id]
            queue.open[lease.lease_id] = lease
        self._context.send(rank, self.message_of(task))

    def _pump(self, queue: KeyQueue) -> None:
        """Push while there is room; ask for more room if tasks are left."""
        tasks = queue.tasks
        if queue.ahead:
            self._serve_ahead(queue)
        if queue.lines:
            self._serve_lines(queue)
        if queue.ahead:
            self._serve_beside(queue)
        while tasks and queue.open:
            task = tasks.popleft()
            if task.state == QUEUED:
                if queue.ahead:  # Pushing the one before it has filled a lease, under which it stands ahead by now.
                    self._ahead.forget(queue, task)
                queue.n_queued -= 1
                self.n_queued -= 1
                self._push(task, queue)
        if queue.lines:
            self._shorten_lines(queue)
        if not queue.n_queued:
            tasks.clear()
            if queue.ahead:
                self._ahead.clear(queue)
        elif queue.n_asking < queue.n_queued and len(queue.leases) < len(queue.candidates):
            self._request(queue, self._membership.nearest_idle(queue.candidates, queue.leases))

    def _serve_ahead(self, queue: KeyQueue) -> None:
        """Each lease with room takes the task that stands ahead under it."""
        for lease in list(queue.open.values()):
            task = self._ahead.take(lease)
            if task is not None:
                self._leave(task, queue, lease)

    def _serve_beside(self, queue: KeyQueue) -> None:
        """Leases with room take what stands ahead under others when there is nothing else."""
        tasks, beside = queue.tasks, deque[TaskRecord]()
        while tasks and queue.open:
            if tasks[0].task_id in queue.ahead:
                beside.append(tasks.popleft())
            else:
                self._push_from(tasks, queue)
        while beside and queue.open:
            self._push_from(beside, queue)
        tasks.extendleft(reversed(beside))

    # -- lines -------------------------------------------------------------------------------------------------------

    def _serve_lines(self, queue: KeyQueue) -> None:
        """Each lease with room takes the older of what waits for it and what waits for any."""
        tasks = queue.tasks
        for lease in list(queue.open.values()):
            line = lease.line
            if not line:
                continue
            while line and lease.lease_id in queue.open:
                is_older = tasks and tasks[0].task_id < line[0].task_id
                self._push_from(tasks if is_older else line, queue, lease)
            self._forget_line_if_empty(lease)

    def _shorten_lines(self, queue: KeyQueue) -> None:
        """Leases with room, for which nothing waits, take from much longer lines, first from those of their hosts."""
        host_of = self._membership.host_of
        while queue.lines and queue.open:
            shortest = min(queue.open.values(), key=lambda lease: (lease.n_there, lease.rank))
            n_max, host = shortest.n_there + N_LONGER_MAX, host_of[shortest.rank]
            lines = [
                (host_of[lease.rank] == host, lease.n_there + len(lease.line), -lease.rank, lease)
                for lease in queue.lines.values()
                if lease.n_there + len(lease.line) > n_max
            ]
            if not lines:
                return
            longest = max(lines)[-1]
            self._push_from(longest.line, queue, shortest)
            self._forget_line_if_empty(longest)

    def _push_from(self, waiting: deque[TaskRecord], queue: KeyQueue, lease: Lease | None = None) -> None:
        task = waiting.popleft()
        if task.state == QUEUED:
            self._ahead.forget(queue, task)
            self._leave(task, queue, lease)

    def _leave(self, task: TaskRecord, queue: KeyQueue, lease: Lease | None) -> None:
        queue.n_queued -= 1
        self.n_queued -= 1
        task.awaits = -1
        self._push(task, queue, lease)

    def _forget_line_if_empty(self, lease: Lease) -> None:
        if not lease.line:
            del lease.queue.lines[lease.lease_id]

    def _end_line(self, lease: Lease) -> None:
        """The tasks that wait for a lease go anywhere; they have waited longest."""
        queue = lease.queue
        for task in reversed(lease.line):
            task.awaits = -1
            queue.tasks.appendleft(task)
            self._context.runnable.append(task.task_id)
        lease.line.clear()
        self._forget_line_if_empty(lease)
        self._pump(queue)
        for _ in range(len(queue.unnamed)):
            self._ahead.look(queue)

    # -- leases ------------------------------------------------------------------------------------------------------

    def _request(self, queue: KeyQueue, rank: int) -> Lease:
        self._n_leases += 1
        lease = Lease(self._n_leases, rank, queue)
        self.leases[lease.lease_id] = lease
        queue.leases[rank] = lease
        queue.n_asking += 1
        self._note_idle(lease)
        self._context.send(rank, LeaseRequested(lease.lease_id, queue.key[0]))
        return lease

    def on_granted(self, message: LeaseGranted) -> None:
        """A rank opens, deepens or closes a lease."""
        lease = self.leases.get(message.lease_id)
        if lease is None:
            self._context.count_stale("grant of a returned lease")
            return
        queue = lease.queue
        depth, n_blocked = message.depth, message.n_blocked
        # What runs at a time is replaced one by one.
        lease.n_low = max((depth + n_blocked) // 2, min(depth - 1, self._context.config.n_slots + n_blocked))
        self._set_depth(lease, message.depth)
        if lease.line and not message.depth:
            self._end_line(lease)
        else:
            self._pump(queue)
        if queue.is_spread and message.depth and len(queue.leases) < len(queue.candidates):
            # Calls that come one at a time would find room on the first rank for ever.
            self._request(queue, self._membership.nearest_idle(queue.candidates, queue.leases))

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
            self._check_by(self._context.now + self._context.config.lease_linger_s)

    def _check_by(self, at: float) -> None:
        if self.check_at is None or at < self.check_at:
            self.check_at = at
            self._context.wake_at(at)

    def _return(self, lease: Lease) -> None:
        self._forget(lease)
        self._context.send(lease.rank, LeaseReturned(lease.lease_id))

    def _forget(self, lease: Lease) -> None:
        del self.leases[lease.lease_id]
        lease.queue.remove(lease)
        if lease.ahead is not None:
            self._ahead.forget(lease.queue, lease.ahead)

    def tick(self) -> None:
        """Return the leases that have had nothing to do for a while; where tasks wait meanwhile, ask one rank more."""
        now, config = self._context.now, self._context.config
        linger_s, line_s = config.lease_linger_s, config.hand_back_after_s
        self.check_at = None
        for lease in list(self.leases.values()):
            if lease.n_there:
                continue
            queue = lease.queue
            if lease.line and not lease.depth:
                if lease.lined_since + line_s <= now:
                    self._shut(lease)
                else:
                    self._check_by(lease.lined_since + line_s)
            if lease.idle_since + linger_s <= now:
                if not queue.n_queued:
                    self._return(lease)
                    continue
                lease.idle_since = now
                if len(queue.leases) < len(queue.candidates):
                    self._request(queue, self._membership.nearest_idle(queue.candidates, queue.leases))
            self._check_by(lease.idle_since + linger_s)

    def _shut(self, lease: Lease) -> None:
        """A lease that tasks wait for has not opened soon enough."""
        lease.is_shut = True
        lease.queue.n_asking -= 1
        self._end_line(lease)

    # -- deaths ------------------------------------------------------------------------------------------------------

    def forget_rank(self, rank: int) -> None:
        """A rank is dead: what waits for its leases goes anywhere, when ``look_again`` has been called."""
        for queue in self.queues.values():
            queue.candidates, queue.near = self._membership.candidates(queue.key), {}
            lease = queue.leases.get(rank)
            if lease is None:
                continue
            for task in reversed(lease.line):
                task.awaits = -1
                queue.tasks.appendleft(task)
            self._forget(lease)

    def look_again(self) -> None:
        """Ranks have died, or come: tasks that wait may find room on others, first on those that have become active."""
        for queue in self.queues.values():
            queue.candidates, queue.near = self._membership.candidates(queue.key), {}
            if queue.n_queued or (queue.is_spread and queue.leases):
                for rank in self._membership.called:
                    if rank in queue.candidates and rank not in queue.leases:
                        self._request(queue, rank)
                self._pump(queue)

    def check(self) -> None:
        """Assert what must hold between turns."""
        if self.n_queued != sum(queue.n_queued for queue in self.queues.values()):
            raise InvariantError(f"The queues do not hold the {self.n_queued} tasks that are counted together.")
        for queue in self.queues.values():
            queue.check()
            self._ahead.check(queue)
            if queue.candidates != self._membership.candidates(queue.key):
                raise InvariantError(f"Queue {queue.key} has other candidates than there are: {queue.candidates}.")
