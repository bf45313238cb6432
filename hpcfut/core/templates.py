"""Templates: which rank knows which remote function.

The owner of a template sends it to a rank before its first task goes there, and tells every rank that knows it when the
last handle and the last task are gone. Refs captured by the function are held by the template, here and there.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.effects import ForgetTemplate
from hpcfut.core.references import References
from hpcfut.model.errors import InvariantError
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import TemplateForgotten, TemplateRegistered

if TYPE_CHECKING:
    from hpcfut.core.lease import KeyQueue


class OwnTemplate(msgspec.Struct, gc=False, eq=False):
    """A template that this rank made."""

    template: TaskTemplate
    #: Ranks that were sent it.
    known: dict[int, None]
    #: Unfinished tasks of it.
    n_tasks: int = 0
    #: The queue of its scheduling key, looked up once.
    queue: KeyQueue | None = None
    is_dropped: bool = False


class Templates:
    """Templates made here (``own``) and templates that tasks running here may have (``here``)."""

    def __init__(self, context: Context, references: References) -> None:
        self._context = context
        self._references = references
        self.own: dict[int, OwnTemplate] = {}
        self.here: dict[int, TaskTemplate] = {}
        #: Who sent them.
        self._sources: dict[int, int] = {}
        #: Those of runs that end after their owner has been answered: how many such; and which the owner has forgotten.
        self._kept: dict[int, int] = {}
        self._unneeded: dict[int, None] = {}

    def define(self, template: TaskTemplate) -> None:
        """User code made a remote function."""
        self._references.hold_all(template.nested)
        self.own[template.template_id] = OwnTemplate(template, {})

    def drop(self, template_id: int) -> None:
        """User code dropped its last handle."""
        record = self.own[template_id]
        record.is_dropped = True
        if not record.n_tasks:
            self._forget(record)

    def forget_if_unused(self, record: OwnTemplate) -> None:
        """The last handle has been dropped, and a task of it has ended for good."""
        if not record.n_tasks:
            self._forget(record)

    def ensure_known(self, record: OwnTemplate, rank: int) -> None:
        """Send the template ahead of its first task there."""
        if rank not in record.known:
            record.known[rank] = None
            self._references.report_all(record.template.nested, rank)
            self._context.send(rank, TemplateRegistered(record.template))

    def _forget(self, record: OwnTemplate) -> None:
        template = record.template
        del self.own[template.template_id]
        for rank in record.known:
            self._context.send(rank, TemplateForgotten(template.template_id))
        if self._context.rank not in record.known:
            self._context.effects.append(ForgetTemplate(template.template_id))
        self._references.drop_all(template.nested)

    def on_registered(self, source: int, message: TemplateRegistered) -> None:
        """Executor: tasks of it may come."""
        self.here[message.template.template_id] = message.template
        self._sources[message.template.template_id] = source
        self._references.accept_all(message.template.nested, source)

    def on_forgotten(self, message: TemplateForgotten) -> None:
        """Executor: no more task of it will come."""
        if message.template_id in self._kept:
            self._unneeded[message.template_id] = None
        else:
            self._forget_here(message.template_id)

    def keep(self, template_id: int) -> None:
        """Executor: the owner of a run is answered before that ends, and may have its template forgotten."""
        self._kept[template_id] = self._kept.get(template_id, 0) + 1

    def release(self, template_id: int) -> None:
        """Executor: such a run has ended."""
        self._kept[template_id] -= 1
        if not self._kept[template_id]:
            del self._kept[template_id]
            if self._unneeded.pop(template_id, self) is None:
                self._forget_here(template_id)

    def _forget_here(self, template_id: int) -> None:
        template = self.here.pop(template_id)
        del self._sources[template_id]
        self._context.effects.append(ForgetTemplate(template_id))
        self._references.drop_all(template.nested)

    def forget_knower(self, rank: int) -> None:
        """Owner: a rank that may know templates of this one is dead."""
        for record in self.own.values():
            record.known.pop(rank, None)

    def forget_owner(self, rank: int, in_use: Container[int]) -> None:
        """Executor: the owner is dead, so that no task of its templates will come; some run still."""
        for template_id, source in list(self._sources.items()):
            if source == rank and template_id not in in_use:
                self._unneeded.pop(template_id, None)
                self._forget_here(template_id)

    def find(self, template_id: int) -> TaskTemplate:
        """The template of a task that runs here."""
        template = self.here.get(template_id)
        return template if template is not None else self.own[template_id].template

    def check(self) -> None:
        """Assert what must hold between turns."""
        for template_id, record in self.own.items():
            if record.n_tasks < 0 or (record.is_dropped and not record.n_tasks):
                raise InvariantError(
                    f"Template {template_id} ({record.template.name}) was not forgotten: {record.n_tasks}."
                )
