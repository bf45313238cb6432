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
object that is pending already is not made twice. Each attempt counts as a retry of the task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hpcfut.core.answers import Answers
from hpcfut.core.borrowing import BorrowedObject
from hpcfut.core.cancellations import Cancellations
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LENT
from hpcfut.core.events import BytesLost, TaskSubmitted
from hpcfut.core.lineage import Lineage, Spec
from hpcfut.core.ownership import FAILED, PENDING, RETIRED, SOURCE, STORED, OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.tasks import Tasks
from hpcfut.core.waits import NOT_READY, Waits
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import ENDED, LOST, UNRECOVERABLE, Failure
from hpcfut.model.ids import NO_ID, id_again, name_of
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

        In the order in which they were made, so that none is taken for an argument of another that is lost as well. The
        rest stays where it was, as far as anybody knows; who asks for it is told why it cannot be had. So does what
        only code here holds, if it can read it in place, because the memory of the dead outlives it.
        """
        stored = [record for record in self._owned.values() if record.state == STORED and record.rank == holder]
        for record in sorted(stored, key=lambda record: record.object_id):
            copy = self._copies.copies.get(record.bytes_id)
            is_readable = copy is not None and copy.state == LENT
            if record.state == STORED and (record.n_uses or record.borrowers or not is_readable):
                self.lose(record, failure)

    def fail_all(self, owner: int, failure_of: Callable[[int], Failure]) -> None:
        """The owner of objects that are borrowed here has died: nobody waits for them, or for it."""
        for record in self._answers.fail(owner, failure_of):
            for _ in range(record.n_unconfirmed):
                self._references.on_borrow_confirmed(BorrowConfirmed(record.object_id))
            if record.n_uses:
                self._tasks.wait_again(record.object_id)

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
        plan = _Plan(self._lineage, self._owned, self._tasks)
        if isinstance(record, OwnedObject):
            reason = plan.add(record)
            if reason:
                name = name_of(record.object_id)
                return Failure(UNRECOVERABLE, f"{failure.text} Object {name} is lost for good: {reason}.")
        bytes_id = record.bytes_id
        copy = self._copies.copies.get(bytes_id)
        waiters: list[int] = []
        if copy is not None:
            copy.argument = None
            waiters = [-watcher for watcher in copy.watchers or () if watcher < 0]
            for waiter_id in waiters:
                assert copy.watchers is not None
                del copy.watchers[-waiter_id]
        if isinstance(record, BorrowedObject):
            self._answers.lose(record, failure)
        else:
            for lost in plan.objects:
                if lost.state == STORED:
                    self._references.free_bytes(lost)
                self._references.ownership.reopen(lost, "lose" if lost.state == STORED else "make again")
        if self._context.ready:  # What has not been told yet is not so any more.
            found = [record for record in map(self._references.find, self._context.ready) if record is not None]
            self._context.ready = deque(record.object_id for record in found if record.state not in NOT_READY)
        self._waits.watch_again(record, bytes_id, waiters)
        for spec, wanted in plan.specs.values():
            self._make_again(spec, wanted)
        for spec, _ in plan.specs.values():
            self._lineage.hold_last(spec)
        self._lineage.fit()
        if record.n_uses:  # Else it is no argument.
            self._tasks.wait_again(record.object_id)
        return None

    def _forget_failure(self, record: BorrowedObject) -> None:
        """Who waited has been told. Whoever waits later asks the owner, where it may be read after all.

        A wait that goes on for other objects has counted it, and is still to be told the failure.
        """
        waits = self._waits.waits.values()
        if record.state == FAILED and not any(record.object_id in wait.object_ids for wait in waits):
            self._references.borrowing.move(record, "told")
            record.failure = None

    # -- making again ------------------------------------------------------------------------------------------------

    def _make_again(self, spec: Spec, wanted: list[OwnedObject]) -> None:
        """Run the task of a spec once more, or have an attempt that is under way do for these objects, too."""
        if spec.items is not None:
            for record in wanted:
                task_id, made_id, reserve = self._new_ids(spec, 3)
                self._run_again(spec, task_id, (made_id, reserve), spec.items[record.object_id])
                self._await(spec, record, made_id)
                self._references.drop_local([made_id, reserve])
            return
        is_new = not _is_under_way(spec, self._tasks)
        if is_new:
            return_ids = self._new_ids(spec, len(spec.return_ids))
            self._run_again(spec, return_ids[0], return_ids, 0)
        made_ids = spec.task.return_ids
        for record in wanted:
            self._await(spec, record, made_ids[spec.return_ids.index(record.object_id)])
        if is_new:  # What is not wanted goes as soon as it has come.
            self._references.drop_local(list(made_ids))

    def _new_ids(self, spec: Spec, n: int) -> tuple[int, ...]:
        self._n_ids += n
        return tuple(id_again(spec.task_id, self._n_ids - n + index + 1) for index in range(n))

    def _run_again(self, spec: Spec, task_id: int, return_ids: tuple[int, ...], n_items: int) -> None:
        task = spec.task
        template_id = task.template.template.template_id
        event = TaskSubmitted(task_id, template_id, task.payload, return_ids, spec.arguments, spec.nested, 0)
        spec.task = self._tasks.repeat(event, task.n_retries + 1, n_items)

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
        if maker is not None and spec.items is not None:
            # Its other items are not wanted; but this one may have refs to its children.
            self._cancellations.cancel(maker, is_recursive=False)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for made_id in self._remakes:
            record = self._owned.get(self._references.names[made_id])
            if record is None or record.state != PENDING:
                raise InvariantError(f"{name_of(made_id)} is made for an object that does not wait for it: {record}.")


class _Plan:
    """Which objects must be made again, so that one can be, and by which specs."""

    def __init__(self, lineage: Lineage, owned: dict[int, OwnedObject], tasks: Tasks) -> None:
        self._lineage = lineage
        self._owned = owned
        self._tasks = tasks
        self.objects: list[OwnedObject] = []
        #: By task: the spec, and what is wanted of it.
        self.specs: dict[int, tuple[Spec, list[OwnedObject]]] = {}

    def add(self, lost: OwnedObject) -> str:
        """Plan for a lost object; gives why it cannot be made again, if so."""
        todo, planned = [lost], {lost.object_id: None}
        while todo:
            record = todo.pop()
            spec = self._lineage.specs.get(record.task_id)
            if spec is None:
                reason = "was put, and no task made it. Return it from a task instead"
                return self._because(lost, record.object_id, reason)
            is_new = spec.task_id not in self.specs
            wanted = self.specs.setdefault(spec.task_id, (spec, []))[1]
            self.objects.append(record)
            wanted.append(record)
            if not is_new or (spec.items is None and _is_under_way(spec, self._tasks)):
                continue
            why_not = self._lineage.why_not(spec)
            if why_not:
                name = f"{name_of(spec.task_id)} ({spec.task.template.template.name})"
                return self._because(lost, record.object_id, f"was made by task {name}, and {why_not}")
            for object_id in spec.needs:
                needed = self._owned.get(object_id)
                if needed is None:
                    return self._because(lost, object_id, "is not known any more, because its lineage was dropped")
                if needed.state == RETIRED and object_id not in planned:
                    planned[object_id] = None
                    todo.append(needed)
        return ""

    @staticmethod
    def _because(lost: OwnedObject, object_id: int, reason: str) -> str:
        if object_id == lost.object_id:
            return f"it {reason}"
        return f"it is made from object {name_of(object_id)}, which {reason}"


def _is_under_way(spec: Spec, tasks: Tasks) -> bool:
    """Whether there is an attempt already that will make the results; one that is cancelled may not."""
    task = tasks.tasks.get(spec.task.task_id)
    return task is not None and not task.is_cancelled


def _made_fewer(object_id: int) -> Failure:
    return Failure(
        UNRECOVERABLE,
        f"Object {name_of(object_id)} is lost, and the generator that had yielded it ended earlier when it was run "
        f"again. Generators that may be run again must yield the same each time.",
    )
