"""Recovery: objects that are lost are made again, and so is what it takes to make them.

Theory of operation

An object is lost when its bytes cannot be had from where its owner says that they are. Whoever finds that out has the
bytes lent, sent or restored in vain: a thread or watch tells the owner, if another rank is (``ObjectLost``); a run that
never began goes back to the owner of its task, which has the argument in its table. There is one door for all of them
and for everything else that may lose objects: ``lose``. It opens the object again, so that everybody waits for it as
for one that has never been ready, and runs its task once more.

The task is run as a new one, under ids that the core gives out itself. What is wanted of its results becomes that of
the lost objects; the rest nobody holds. So the bytes of an object that was made again have an id of their own. Nobody
who still has, or asks for, the old ones can mistake one for the other, even on the rank that makes them again; and
refs inside the old value, which somebody may just be reading, stay held as long as the object.

Needed objects that are retired (``lineage.py``) are made again first, so recovery goes back as far as it must, and no
further; what is lost as well, without anybody knowing, is found out when the task that needs it is about to run. An
object that is pending already is not made twice. What a death has cost is planned together: one attempt makes all that
is lost of one task, of a generator all its items that are wanted, and it is the generator itself that begins anew if it
was on the dead rank. Each attempt counts as a retry of the task; but of a generator what is found to be lost while an
attempt to make items again is under way does not, because it may all be one loss, of which others heard first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from hpcfut.core.answers import Answers
from hpcfut.core.borrowing import BorrowedObject
from hpcfut.core.cancellations import Cancellations
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LENT
from hpcfut.core.events import BytesLost, TaskSubmitted
from hpcfut.core.lineage import Lineage, Spec
from hpcfut.core.ownership import FAILED, PENDING, RETIRED, SOURCE, STORED, OwnedObject
from hpcfut.core.readers import NOBODY
from hpcfut.core.references import Record, References
from hpcfut.core.task import PUSHED, TaskRecord
from hpcfut.core.tasks import Tasks
from hpcfut.core.waits import NOT_READY, Waits
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import ENDED, LOST, UNRECOVERABLE, Failure
from hpcfut.model.ids import NO_ID, id_again, is_again, name_of
from hpcfut.wire.messages import BorrowConfirmed, ObjectAsked, ObjectFailed, ObjectLost


class Recovery:
    """Runs tasks again; see the module's docstring."""

    def __init__(
        self,
        context: Context,
        references: References,
        answers: Answers,
        copies: Copies,
        lineage: Lineage,
        tasks: Tasks,
        cancellations: Cancellations,
        waits: Waits,
    ) -> None:
        self._context = context
        self._references = references
        self._owned = references.ownership.objects
        self._answers = answers
        self._copies = copies
        self._lineage = lineage
        self._tasks = tasks
        self._cancellations = cancellations
        self._waits = waits
        tasks.on_lost = self.lose
        answers.on_lost_for_good = self._forget_failure
        self._n_ids = 0
        #: What is being made again, under its new id → by which spec.
        self._remakes: dict[int, Spec] = {}

    # -- loss --------------------------------------------------------------------------------------------------------

    def on_bytes_lost(self, event: BytesLost) -> None:
        """What is stored of an object of this rank has gone, wherever it was."""
        record = self._owned.get(event.object_id)
        if record is None or record.state != STORED or record.rank == SOURCE:
            self._context.count_stale("loss of what is not stored")
        elif self.lose(record, Failure(LOST, event.reason)) is not None:
            self._context.count_stale("loss that cannot be helped")

    def lose_all(self, holder: int, failure: Failure) -> None:
        """The holder of objects of this rank has died: have made again what can be.

        All together, so that one attempt makes again whatever is lost of one task. The rest stays where it was, as far
        as anybody knows; who asks for it is told why it cannot be had. So does what only code here holds, if it can
        read it in place, because the memory of the dead outlives it.
        """
        plan = _Plan(self._lineage, self._owned, self._tasks, holder)
        stored = [record for record in self._owned.values() if record.state == STORED and record.rank == holder]
        lost: list[Record] = []
        for record in sorted(stored, key=lambda record: record.object_id):
            copy = self._copies.copies.get(record.bytes_id)
            is_readable = copy is not None and copy.state == LENT
            if (record.n_uses or record.borrowers or not is_readable) and not plan.add(record):
                lost.append(record)
        self._carry_out(plan, lost, failure)

    def fail_all(self, owner: int, failure_of: Callable[[int], Failure]) -> None:
        """The owner of objects that are borrowed here has died: nobody waits for them, or for it."""
        failed = self._answers.fail(owner, failure_of)
        for record in failed:
            for _ in range(record.n_unconfirmed):
                self._references.on_borrow_confirmed(BorrowConfirmed(record.object_id))
        self._wait_again(failed)

    def on_lost(self, source: int, message: ObjectLost) -> None:
        """A borrower cannot have the bytes that it was told of; there may be others by now."""
        object_id = message.object_id
        record = self._owned.get(object_id)
        if record is not None and record.state == STORED and record.bytes_id == message.bytes_id:
            failure = self.lose(record, message.failure)
            if failure is not None:
                self._context.send(source, ObjectFailed(object_id, failure))
                return
        self._references.on_asked(source, ObjectAsked(object_id))

    def on_missing(self, bytes_id: int) -> None:
        """Somebody here waits for bytes that cannot be had."""
        copy = self._copies.copies[bytes_id]
        assert copy.failure is not None
        record = self._references.find(self._references.names.get(bytes_id, bytes_id))
        if record is not None and record.state == STORED and record.bytes_id == bytes_id:
            copy.failure = self.lose(record, copy.failure) or copy.failure

    def lose(self, record: Record, failure: Failure) -> Failure | None:
        """The bytes of a stored object cannot be had: have them made again. Gives why that cannot be, if so."""
        if failure.kind == UNRECOVERABLE or record.rank == SOURCE:
            return failure
        plan = _Plan(self._lineage, self._owned, self._tasks, NOBODY)
        if isinstance(record, OwnedObject):
            reason = plan.add(record)
            if reason:
                name = name_of(record.object_id)
                return Failure(UNRECOVERABLE, f"{failure.text} Object {name} is lost for good: {reason}.")
        self._carry_out(plan, [record], failure)
        return None

    def _carry_out(self, plan: _Plan, lost: Sequence[Record], failure: Failure) -> None:
        """Open again what is lost, and what it takes to make it again, and make that."""
        waiting = [(record, record.bytes_id, self._take_waiters(record.bytes_id)) for record in lost]
        for record in lost:
            if isinstance(record, BorrowedObject):
                self._answers.lose(record, failure)
        for each in plan.objects:
            if each.state == STORED:
                self._references.free_bytes(each)
            self._references.ownership.reopen(each, "lose" if each.state == STORED else "make again")
        if self._context.ready:  # What has not been told yet is not so any more.
            found = [record for record in map(self._references.find, self._context.ready) if record is not None]
            self._context.ready = deque(record.object_id for record in found if record.state not in NOT_READY)
        for record, bytes_id, waiters in waiting:
            self._waits.watch_again(record, bytes_id, waiters)
        for spec, wanted in plan.specs.values():
            self._make_again(spec, wanted, plan.attempt_to_join(spec))
        for spec, _ in plan.specs.values():
            self._lineage.hold_last(spec)
        self._lineage.fit()
        self._wait_again(lost)

    def _take_waiters(self, bytes_id: int) -> list[int]:
        """Who waits for bytes that are lost, and from now on for the object."""
        copy = self._copies.copies.get(bytes_id)
        if copy is None:
            return []
        copy.argument = None
        watchers = copy.watchers or {}
        waiters = [-watcher for watcher in watchers if watcher < 0]
        for waiter_id in waiters:
            del watchers[-waiter_id]
        return waiters

    def _wait_again(self, lost: Iterable[Record]) -> None:
        arguments = {record.object_id: None for record in lost if record.n_uses}
        if arguments:
            self._tasks.wait_again(arguments)

    def _forget_failure(self, record: BorrowedObject) -> None:
        """Who waited has been told. Whoever waits later asks the owner, where it may be read after all.

        A wait that goes on for other objects has counted it, and is still to be told the failure.
        """
        waits = self._waits.waits.values()
        if record.state == FAILED and not any(record.object_id in wait.object_ids for wait in waits):
            self._references.borrowing.move(record, "told")
            record.failure = None

    # -- making again ------------------------------------------------------------------------------------------------

    def _make_again(self, spec: Spec, wanted: list[OwnedObject], attempt: TaskRecord | None) -> None:
        """Run the task of a spec once more, or have an attempt that is under way do for these objects, too."""
        if spec.items is not None:
            made_ids, unwanted = self._make_items(spec, [spec.items[record.object_id] for record in wanted], attempt)
        else:
            unwanted = ()
            if attempt is None:
                unwanted = self._new_ids(spec, len(spec.return_ids))
                self._run_again(spec, unwanted[0], unwanted, 0)
            return_ids = spec.task.return_ids
            made_ids = tuple(return_ids[spec.return_ids.index(record.object_id)] for record in wanted)
        for record, made_id in zip(wanted, made_ids, strict=True):
            self._await(spec, record, made_id)
        # What is not wanted goes as soon as it has come.
        self._references.drop_local(list(unwanted))

    def _make_items(
        self, spec: Spec, positions: list[int], attempt: TaskRecord | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Have items of a generator made again; gives their new names, and all that are held for this rank's code."""
        if attempt is not None:
            made_ids = self._new_ids(spec, len(positions))
            self._tasks.items.want_again(attempt, dict(zip(positions, made_ids, strict=True)))
            return made_ids, ()
        task_id, *named = self._new_ids(spec, len(positions) + 2)
        made_ids, reserve = tuple(named[:-1]), named[-1]
        names = dict(zip(positions, made_ids, strict=True))
        first = min(positions)
        item_ids = (names.get(position, NO_ID) for position in range(first, max(positions) + 1))
        self._run_again(spec, task_id, (*item_ids, reserve), first)
        return made_ids, (*made_ids, reserve)

    def _new_ids(self, spec: Spec, n: int) -> tuple[int, ...]:
        self._n_ids += n
        return tuple(id_again(spec.task_id, self._n_ids - n + index + 1) for index in range(n))

    def _run_again(self, spec: Spec, task_id: int, return_ids: tuple[int, ...], n_items: int) -> None:
        task = spec.task
        template_id = task.template.template.template_id
        event = TaskSubmitted(task_id, template_id, task.payload, return_ids, spec.arguments, spec.nested, 0)
        n_retries = task.n_retries + (not _is_tried_again(spec, self._tasks))
        spec.task = self._tasks.repeat(event, n_retries, n_items)

    def _await(self, spec: Spec, record: OwnedObject, made_id: int) -> None:
        made = self._owned[made_id]
        made.n_uses += 1
        made.watchers = {NO_ID: None}
        record.task_id = made.task_id
        self._references.names[made_id] = record.object_id
        self._remakes[made_id] = spec
        if made.state != PENDING:
            self._context.ready.append(made_id)

    def on_made(self, made_id: int) -> None:
        """What is to be the value of a lost object is there, or never will be."""
        spec, made = self._remakes.pop(made_id), self._owned.pop(made_id)
        object_id = self._references.names[made_id]
        record, ownership = self._owned[object_id], self._references.ownership
        record.task_id = spec.task_id
        contained = record.contained + made.contained
        if made.state == STORED:
            ownership.set_stored(record, made.rank, made.nbytes, contained, made_id)
            self._lineage.hold_last(spec)
        else:
            del self._references.names[made_id]
            if made.payload is not None:
                ownership.set_inline(record, made.payload, contained)
                self._lineage.hold_value(object_id)
                self._lineage.leave(spec, object_id)
            else:
                assert made.failure is not None
                ownership.set_failed(record, made.failure if made.failure.kind != ENDED else _made_fewer(object_id))
        self._references.after_resolving(record)
        self._lineage.fit()
        maker = self._tasks.tasks.get(made.task_id)
        if maker is not None and maker.items and is_again(maker.task_id) and not any(list(maker.items)[:-1]):
            # No further items are wanted; but these may have refs to its children.
            self._cancellations.cancel(maker, is_recursive=False)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for made_id in self._remakes:
            record = self._owned.get(self._references.names[made_id])
            if record is None or record.state != PENDING:
                raise InvariantError(f"{name_of(made_id)} is made for an object that does not wait for it: {record}.")


class _Plan:
    """Which objects must be made again, so that one can be, and by which specs."""

    def __init__(self, lineage: Lineage, owned: dict[int, OwnedObject], tasks: Tasks, dead: int) -> None:
        self._lineage = lineage
        self._owned = owned
        self._tasks = tasks
        self._dead = dead
        self.objects: list[OwnedObject] = []
        #: By task: the spec, and what is wanted of it.
        self.specs: dict[int, tuple[Spec, list[OwnedObject]]] = {}
        self._planned: dict[int, None] = {}

    def add(self, lost: OwnedObject) -> str:
        """Plan for a lost object; gives why it cannot be made again, if so."""
        found: list[tuple[OwnedObject, Spec]] = []
        reason = self._follow(lost, found)
        if not reason:
            for record, spec in found:
                self._planned[record.object_id] = None
                self.objects.append(record)
                self.specs.setdefault(spec.task_id, (spec, []))[1].append(record)
        return reason

    def attempt_to_join(self, spec: Spec) -> TaskRecord | None:
        """The attempt under way, if there is one, that will make what is wanted of a spec.

        That of a generator makes what it has made by now only if it has yet to begin, or was on the rank that is dead.
        """
        attempt = _under_way(spec, self._tasks)
        if attempt is None or spec.items is None or attempt.state != PUSHED or attempt.rank == self._dead:
            return attempt
        return None

    def _is_free(self, spec: Spec) -> bool:
        """Whether this costs no retry; an attempt that comes back from the dead needs one for that."""
        attempt = self.attempt_to_join(spec)
        if attempt is not None:
            return spec.items is None or attempt.state != PUSHED
        return _is_tried_again(spec, self._tasks)

    def _follow(self, lost: OwnedObject, found: list[tuple[OwnedObject, Spec]]) -> str:
        todo, seen = [lost], {lost.object_id: None}
        specs: dict[int, None] = {}
        while todo:
            record = todo.pop()
            spec = self._lineage.specs.get(record.task_id)
            if spec is None:
                reason = "was put, and no task made it. Return it from a task instead"
                return self._because(lost, record.object_id, reason)
            is_new = spec.task_id not in specs and spec.task_id not in self.specs
            specs[spec.task_id] = None
            found.append((record, spec))
            if not is_new:
                continue
            why_not = "" if self._is_free(spec) else self._lineage.why_not(spec)
            if why_not:
                name = f"{name_of(spec.task_id)} ({spec.task.template.template.name})"
                return self._because(lost, record.object_id, f"was made by task {name}, and {why_not}")
            for object_id in spec.needs:
                needed = self._owned.get(object_id)
                if needed is None:
                    return self._because(lost, object_id, "is not known any more, because its lineage was dropped")
                if needed.state == RETIRED and object_id not in seen and object_id not in self._planned:
                    seen[object_id] = None
                    todo.append(needed)
        return ""

    @staticmethod
    def _because(lost: OwnedObject, object_id: int, reason: str) -> str:
        if object_id == lost.object_id:
            return f"it {reason}"
        return f"it is made from object {name_of(object_id)}, which {reason}"


def _under_way(spec: Spec, tasks: Tasks) -> TaskRecord | None:
    """The attempt that makes the results already, if there is one; one that is cancelled may not."""
    attempt = tasks.tasks.get(spec.task.task_id)
    return attempt if attempt is not None and not attempt.is_cancelled else None


def _is_tried_again(spec: Spec, tasks: Tasks) -> bool:
    """Whether something lost of it is being made already: what is found to be lost meanwhile costs no further retry."""
    return is_again(spec.task.task_id) and _under_way(spec, tasks) is not None


def _made_fewer(object_id: int) -> Failure:
    return Failure(
        UNRECOVERABLE,
        f"Object {name_of(object_id)} is lost, and the generator that had yielded it ended earlier when it was run "
        f"again. Generators that may be run again must yield the same each time.",
    )
