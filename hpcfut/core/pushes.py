"""Pushes: what an executor is told of a task, with its arguments as values, loans or places."""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.ownership import SOURCE, STORED
from hpcfut.core.references import References
from hpcfut.core.task import TaskRecord
from hpcfut.core.transfers import Transfers
from hpcfut.model.ids import NO_ID
from hpcfut.wire.actors import MethodPushed
from hpcfut.wire.messages import Argument, TaskPushed


class Pushes:
    """Makes the messages; what is lent with one is lent from then on."""

    def __init__(self, context: Context, references: References, transfers: Transfers) -> None:
        self._context = context
        self._references = references
        self._loans = transfers.loans
        self._has_other_hosts = not transfers.readers.are_all_on_one_host

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

    def call_of(self, task: TaskRecord, actor_id: int) -> MethodPushed:
        """The same for a call of a method."""
        return MethodPushed(
            task.task_id,
            actor_id,
            task.template.template.template_id,
            task.payload,
            self.arguments_of(task) if task.arguments else (),
            task.nested,
            task.return_ids if len(task.return_ids) != 1 else (),
            self._item_ids_of(task) if task.items is not None else (),
        )

    def _item_ids_of(self, task: TaskRecord) -> tuple[int, ...]:
        """Names for a generator's items; those that came in an earlier attempt are made again and thrown away."""
        assert task.items is not None
        return (NO_ID,) * task.n_items + tuple(task.items)[:-1]

    def arguments_of(self, task: TaskRecord) -> tuple[Argument, ...]:
        """The task's arguments, all of them ready, as values or places."""
        arguments, rank = [], task.rank
        for object_id in task.arguments:
            arguments.append(self._loans.lend_again(object_id, rank) or self._argument(object_id, rank))
        return tuple(arguments)

    def _argument(self, object_id: int, rank: int) -> Argument:
        record = self._references.find(object_id)
        assert record is not None
        if record.state != STORED:
            return Argument(object_id, record.payload, 0, 0, record.contained)
        if record.rank == SOURCE:
            return Argument(object_id, self._references.keepers.tell_recipe(record, rank), 0, record.nbytes)
        bytes_id = record.bytes_id
        if record.rank == self._context.rank:
            argument = self._loans.lend_argument(bytes_id, rank, record.nbytes, record.contained)
        else:
            argument = Argument(bytes_id, None, record.rank, record.nbytes, record.contained)
        if self._has_other_hosts and argument.offset < 0 and bytes_id == object_id:
            self._references.keepers.note_sent(record, rank)
        return argument
