"""Standstills: tasks that hold a resource while they wait for tasks that need it, and so wait for ever.

A turn at an actor is such a resource: a method that waits keeps it, and others of the actor wait behind.

Theory of operation

A task that waits gives back its cores, and keeps everything else. A rank on which such a task has waited for
``standstill_after_s`` asks all ranks, itself included, who waits there for good, for what, and holding what. What an
object's maker is, its owner knows; so each further round also asks owners for the makers of objects that the last one
brought up. The answers come at different instants. But every round begins after all answers of the one before; so what
two rounds in a row agree on (the same waits, not new ones for the same objects) was so at the instant between them,
all of it at once; and a task that stood in a queue both times cannot have started meanwhile, because what it needs was
held. ``stuck.py`` judges what follows. The owners are told which tasks can never start, and let them fail. A rank that
dies may set a task free, and so may one that arrives; so an inquiry begins anew then, and an owner that reckons with
other ranks than the inquiry did pays no heed to what it has found. It finds it once more if it is still so.

Limits. A wait with a timeout, a wait of an event loop, and a generator that is held back for its consumer count as able
to go on; so there is no verdict while these are part of the circle. Who holds nothing besides cores never starts an
inquiry. While nothing is found, inquiries become rarer, down to one in ``INTERVAL_MAX_S``.
"""

from __future__ import annotations

from hpcfut.core.cancellations import Cancellations
from hpcfut.core.context import Context
from hpcfut.core.membership import Membership
from hpcfut.core.ownership import PENDING
from hpcfut.core.references import References
from hpcfut.core.residents import Residents
from hpcfut.core.run import BLOCKED, READY
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.stuck import Facts, Judgement
from hpcfut.core.task import QUEUED
from hpcfut.core.task import WAITING as WAITING_TASK
from hpcfut.core.tasks import Tasks
from hpcfut.core.wait import WORKING
from hpcfut.core.waits import NOT_READY, Waits
from hpcfut.model.ids import owner_of
from hpcfut.model.template import TaskTemplate
from hpcfut.model.waiting import BlockedRun, BlockedWait, QueuedTask, WaitingTask
from hpcfut.wire.standstills import StandstillFound, WaitersAsked, WaitersReported

INTERVAL_MAX_S = 30.0
N_ROUNDS_MAX = 10


class Standstills:
    """Asks, answers, and judges."""

    def __init__(
        self,
        context: Context,
        references: References,
        membership: Membership,
        tasks: Tasks,
        scheduler: Scheduler,
        runs: Runs,
        residents: Residents,
        waits: Waits,
        cancellations: Cancellations,
    ) -> None:
        self._context = context
        self._references = references
        self._membership = membership
        self._tasks = tasks
        self._scheduler = scheduler
        self._runs = runs
        self._residents = residents.residents
        self._waits = waits
        self._cancellations = cancellations
        self._interval_s = context.config.standstill_after_s
        self._round = 0
        self._n_rounds_left = 0
        self._answers: dict[int, WaitersReported] = {}
        #: Objects whose makers are asked for.
        self._unknown: dict[int, None] = {}
        self._evidence: list[tuple[int, tuple[int, ...]]] = []

    # -- asking ------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Some task here has waited for a while with something in its hands."""
        scheduler = self._scheduler
        if not (scheduler.blocked_holders or any(resident.n_blocked for resident in self._residents.values())):
            scheduler.suspect_at = None
            self._interval_s = self._context.config.standstill_after_s
            return
        scheduler.suspect_at = self._context.now + self._interval_s
        self._context.wake_at(scheduler.suspect_at)
        self._interval_s = min(2 * self._interval_s, INTERVAL_MAX_S)
        if not self._n_rounds_left:
            self._unknown.clear()
            self._evidence = []
            self._n_rounds_left = N_ROUNDS_MAX
            self._ask()

    def _ask(self) -> None:
        self._round += 1
        self._n_rounds_left -= 1
        self._answers = {}
        unknown: dict[int, list[int]] = {}
        for object_id in self._unknown:
            unknown.setdefault(owner_of(object_id), []).append(object_id)
        for rank in self._membership.alive:
            self._context.send(rank, WaitersAsked(self._round, tuple(unknown.get(rank, ()))))

    def on_reported(self, source: int, message: WaitersReported) -> None:
        """One rank's answer."""
        if message.round_number != self._round:
            self._context.count_stale("answer to a finished inquiry")
            return
        self._answers[source] = message
        if len(self._answers) == len(self._membership.alive):
            self._conclude()

    def begin_anew(self) -> None:
        """A rank has died: what it and others have answered is not so any more."""
        self._round += 1
        self._n_rounds_left, self._answers = 0, {}
        self._interval_s = self._context.config.standstill_after_s
        if self._scheduler.suspect_at is not None:
            self._scheduler.suspect_at = self._context.now + self._interval_s
            self._context.wake_at(self._scheduler.suspect_at)

    def _conclude(self) -> None:
        facts = Facts()
        for rank, report in sorted(self._answers.items()):
            for run in report.runs:
                facts.runs[run.task_id] = run
                facts.ranks[run.task_id] = rank
            # What a replacement may run is not stuck.
            facts.queued.update(
                (task.task_id, task) for task in report.queued if not self._membership.is_awaited(task.key)
            )
            facts.waiting.update((task.task_id, task) for task in report.waiting)
            facts.makers.update(report.makers)
        new = {
            object_id: None
            for object_id in facts.needed()
            if object_id not in facts.makers and object_id not in self._unknown
        }
        self._unknown.update(new)
        totals = [record.resources for record in self._membership.roster]
        judgement = Judgement(facts, totals, self._membership.candidates)
        evidence, self._evidence = self._evidence, judgement.evidence()
        victims = judgement.victims()
        if victims and not new and evidence == self._evidence:
            for victim in victims:
                found = StandstillFound(victim.task_id, victim.sentence, self._membership.active)
                self._context.send(owner_of(victim.task_id), found)
            self._n_rounds_left = 0
        elif (new or victims) and self._n_rounds_left:
            self._ask()
        else:
            self._n_rounds_left = 0

    def on_found(self, message: StandstillFound) -> None:
        """A task of this rank can never start; if that was so before a death or an arrival, it may start by now."""
        if message.active == self._membership.active:
            self._cancellations.give_up(message.task_id, message.failure)
        else:
            self._context.count_stale("standstill among other ranks")

    # -- answering ---------------------------------------------------------------------------------------------------

    def on_asked(self, source: int, message: WaitersAsked) -> None:
        """A rank wants to know who waits here for good."""
        waiting: dict[int, WaitingTask] = {}
        queued: dict[int, QueuedTask] = {}
        makers: dict[int, int] = {}
        waits: dict[int, list[BlockedWait]] = {}
        wanted = list(message.object_ids)
        on_stack = {run.waiter_id: run for run in self._runs.runs.values() if run.waiter_id}
        for wait in self._waits.waits.values():
            if wait.run is None or not wait.is_for_good:
                continue
            object_ids, n_wanted = wait.object_ids, wait.n_wanted
            if wait.run.is_cancelled:
                if wait.state != WORKING:
                    continue
                # It wants nothing any more, but its thread goes on only when the task on its stack has ended.
                object_ids, n_wanted = list(on_stack[wait.waiter_id].return_ids), 1
            missing = tuple(object_id for object_id in object_ids if self._state_of(object_id) in NOT_READY)
            # The others are here, or on their way.
            n_missing = max(n_wanted - (len(object_ids) - len(missing)), 0)
            waits.setdefault(wait.run.task_id, []).append(BlockedWait(wait.waiter_id, n_missing, missing))
            wanted += missing
        runs = []
        for run in self._runs.runs.values():
            held = _besides_cores(run.template)
            if run.state == BLOCKED and run.n_waits == len(waits.get(run.task_id, ())):
                runs.append(BlockedRun(run.task_id, run.template.name, held, tuple(waits[run.task_id])))
            elif run.state == READY and held:
                queued[run.task_id] = QueuedTask(run.task_id, run.template.name, run.template.key)
        blocked = {run.task_id: None for run in runs}
        for resident in self._residents.values():
            for task_id, name, key, ahead in resident.kept_waiting(blocked):
                queued[task_id] = QueuedTask(task_id, name, key, ahead)
        self._follow(wanted, makers, queued, waiting)
        self._context.send(
            source,
            WaitersReported(
                message.round_number,
                tuple(runs),
                tuple(queued.values()),
                tuple(waiting.values()),
                tuple(makers.items()),
            ),
        )

    def _state_of(self, object_id: int) -> str:
        record = self._references.find(object_id)
        return record.state if record is not None else ""

    def _follow(
        self,
        wanted: list[int],
        makers: dict[int, int],
        queued: dict[int, QueuedTask],
        waiting: dict[int, WaitingTask],
    ) -> None:
        """Find the makers of own pending objects, and what these wait for in turn."""
        owned, tasks = self._references.ownership.objects, self._tasks.tasks
        for object_id in wanted:  # It grows meanwhile.
            record = owned.get(object_id)
            if record is None or record.state != PENDING or object_id in makers:
                continue
            task = tasks.get(record.task_id)
            if task is None or task.is_cancelled:
                continue
            makers[object_id] = task.task_id
            template = task.template.template
            if task.state == QUEUED and _besides_cores(template):
                queued[task.task_id] = QueuedTask(task.task_id, template.name, template.key)
            elif task.state == WAITING_TASK and task.task_id not in waiting:
                missing = tuple(
                    argument for argument in dict.fromkeys(task.arguments) if self._state_of(argument) in NOT_READY
                )
                waiting[task.task_id] = WaitingTask(task.task_id, missing)
                wanted.extend(missing)


def _besides_cores(template: TaskTemplate) -> tuple[tuple[str, int], ...]:
    return tuple(entry for entry in template.resources if entry[0] != "CPU")
