"""Lineage: the specs of ended tasks whose results may be lost, kept for as long as anybody could need them again.

Theory of operation (after Wang et al., NSDI'21, section 4.2, and the authors' TLA+ model)

Only what is stored can be lost, so a task whose results all came inline leaves nothing here. For any other its *spec*
stays: the call, its arguments, and the refs inside it. It is in scope as long as one of its stored results is, which is

* held, by anybody anywhere, or being made again; or
* *needed*: an argument of another spec that is in scope. Its value goes with the last ref, its record stays
  (*retired*).

So objects end in two stages, value first, spec later. When the last result of a task leaves the scope, so does the
task's spec, and perhaps those of the tasks that made its arguments.

What a spec takes as arguments must be there, or be there again, when it is run again. An object of this rank that a
spec in scope can make again is only needed. Anything else is *held* until the spec goes, with its value: what was put
or came inline, what belongs to another rank, which does the same for its own lineage, what nobody may make again.

Lineage is bounded: beyond so many bytes, of specs and of the values that they hold, the oldest specs are *barred*. A
value counts once, however many specs hold it. A barred spec holds and needs nothing any more, and is only there to say
why its results cannot be made again. So is that of a task that was cancelled, or that may not be tried once more. And
before anybody is told that the store is full, specs give way that hold what nobody else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

import msgspec

from hpcfut.core.context import Context, increment
from hpcfut.core.ownership import INLINE, RETIRED, SOURCE, STORED, OwnedObject
from hpcfut.core.references import References
from hpcfut.core.task import TaskRecord
from hpcfut.core.templates import Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import is_again, name_of
from hpcfut.model.told import nbytes_of

#: What a spec takes besides its payload and the inline values that it holds, and each of its arguments and results.
_NBYTES_SPEC: Final = 600
_NBYTES_REF: Final = 50


class Spec(msgspec.Struct, gc=False, eq=False):
    """What it takes to run a task again."""

    #: The task that made the results first; they name it, however often they have been made again.
    task_id: int
    #: Its latest attempt, which may be under way.
    task: TaskRecord
    arguments: tuple[int, ...]
    nested: tuple[int, ...]
    return_ids: tuple[int, ...]
    #: Results in scope.
    n_left: int
    #: For a generator: stored items in scope → how many items came before.
    items: dict[int, int] | None = None
    #: Whether it has taken over from the task what that has held; until then it runs for the first time.
    is_settled: bool = False
    #: What it holds, and what it only needs.
    held: list[int] = []
    needs: list[int] = []
    nbytes: int = 0
    #: Why it is barred.
    why_not: str = ""

    @property
    def result_ids(self) -> Collection[int]:
        """Its results, of a generator the stored items in scope."""
        return self.return_ids if self.items is None else self.items


class Value(msgspec.Struct, gc=False, eq=False):
    """An object that specs hold."""

    #: What it counts, as it was when the first of them took hold of it.
    nbytes: int
    n_holds: int = 0
    specs: dict[int, None] = {}


class Lineage:
    """The table of specs; see the module's docstring."""

    def __init__(self, context: Context, references: References, templates: Templates) -> None:
        self._nbytes_max = context.config.nbytes_lineage_max
        self._rank = context.rank
        self._references = references
        self._owned = references.ownership.objects
        self._templates = templates
        references.on_collected = self._on_collected
        self.specs: dict[int, Spec] = {}
        #: Those that are not barred and have taken over from their tasks, the oldest first.
        self._live: dict[int, Spec] = {}
        #: Object → the specs of which it is an argument that can be made again.
        self.needed: dict[int, dict[int, None]] = {}
        self._values: dict[int, Value] = {}
        #: Whether anything was dropped for a full store.
        self.has_given_way = False
        self.nbytes = 0
        #: Specs whose last result has left the scope; a list, not a recursion, because chains can be long.
        self._out: deque[Spec] = deque()
        self._is_draining = False

    # -- into scope --------------------------------------------------------------------------------------------------

    def keep(self, task: TaskRecord) -> None:
        """A task has returned stored results: its spec stays, and takes over what the task holds."""
        if is_again(task.task_id):
            return
        n_left = sum(self._is_in_scope(object_id, task.task_id) for object_id in task.return_ids)
        if n_left:
            spec = Spec(task.task_id, task, task.arguments, task.nested, task.return_ids, n_left)
            self.specs[task.task_id] = spec
            self._take_over(spec, task)

    def _is_in_scope(self, object_id: int, task_id: int) -> bool:
        record = self._owned.get(object_id)
        return record is not None and record.state == STORED and record.task_id == task_id

    def note_item(self, task: TaskRecord, object_id: int) -> None:
        """A generator has made a stored item."""
        task_id = task.task_id
        if is_again(object_id) or not self._is_in_scope(object_id, task_id):
            return
        spec = self.specs.get(task_id)
        if spec is None:
            spec = self.specs[task_id] = Spec(task_id, task, task.arguments, task.nested, (), 0, {})
        assert spec.items is not None
        spec.items[object_id] = task.n_items - 1
        spec.n_left += 1

    def settle(self, task: TaskRecord) -> None:
        """A generator has ended, in whatever way."""
        spec = self.specs.get(task.task_id)
        if spec is not None:
            self._take_over(spec, task)

    def _take_over(self, spec: Spec, task: TaskRecord) -> None:
        """The task of a spec has ended for the first time, and gives back nothing that the spec wants."""
        spec.is_settled = True
        spec.why_not = "the task was cancelled. Call it again" if task.is_cancelled else self.why_not(spec)
        if spec.why_not:
            self._strip(spec)
            return
        task.arguments = task.nested = ()
        task.template.n_tasks += 1
        ids = spec.arguments + spec.nested
        spec.held, spec.needs = [], []
        spec.nbytes = _NBYTES_SPEC + nbytes_of(task.payload) + _NBYTES_REF * (len(ids) + len(spec.result_ids))
        for object_id in ids:
            record = self._owned.get(object_id)
            if record is not None and self._can_make_again(record):
                spec.needs.append(object_id)
                self.needed.setdefault(object_id, {})[spec.task_id] = None
            else:
                self._note_held(spec, object_id)
        self._live[spec.task_id] = spec
        self.nbytes += spec.nbytes
        if spec.needs:
            self._references.drop_all(tuple(spec.needs))
        self.fit()

    def _note_held(self, spec: Spec, object_id: int) -> None:
        value = self._values.get(object_id)
        if value is None:
            record = self._references.find(object_id)
            nbytes = 0
            if record is not None:
                nbytes = nbytes_of(record.payload or b"")
                if record.state == STORED and record.rank != SOURCE:
                    nbytes = record.nbytes
            value = self._values[object_id] = Value(nbytes)
            self.nbytes += nbytes
        value.n_holds += 1
        value.specs[spec.task_id] = None
        spec.held.append(object_id)

    def fit(self) -> None:
        """Keep no more than is allowed."""
        while self.nbytes > self._nbytes_max:
            self._bar(
                next(iter(self._live.values())),
                f"the lineage of this rank, with the values that it holds, takes more than the {self._nbytes_max} "
                f"bytes that it may, so the oldest was dropped. Allow more: init(lineage_memory=BYTES)",
            )

    def give_way(self, nbytes: int) -> bool:
        """So much memory is wanted here: let go of values that nobody else holds; gives whether there were any."""
        n_left = nbytes
        for object_id, value in list(self._values.items()):
            if n_left <= 0:
                break
            record = self._owned.get(object_id)
            if record is None or record.state != STORED or record.rank != self._rank:
                continue
            if record.n_local or record.borrowers or record.n_uses != value.n_holds:
                continue
            for task_id in list(value.specs):
                if task_id in self._live:
                    self._bar(
                        self._live[task_id],
                        "an argument of the task was dropped, because the store of its owner was full. Have more room: "
                        "init(object_store_memory=BYTES)",
                    )
            n_left -= record.nbytes
            self.has_given_way = True
        return n_left < nbytes

    def _can_make_again(self, record: OwnedObject) -> bool:
        spec = self.specs.get(record.task_id)
        return record.state == STORED and spec is not None and not self.why_not(spec)

    def why_not(self, spec: Spec) -> str:
        """Why the task of a spec cannot be run once more, if so."""
        task = spec.task
        if task.address is not None:
            return "a method of an actor made it, and a method is not called again for a value that it has given"
        if spec.why_not or task.n_retries < task.template.template.n_retries_max:
            return spec.why_not
        return _exhausted(task.n_retries)

    # -- out of scope ------------------------------------------------------------------------------------------------

    def _on_collected(self, record: OwnedObject) -> bool:
        """Nobody holds an object any more; gives whether its record stays, because it is needed."""
        spec = self.specs.get(record.task_id)
        if spec is None or record.object_id not in spec.result_ids:
            return False  # It was put, or told the end of a generator.
        if record.object_id in self.needed and not spec.why_not:
            return True
        self.leave(spec, record.object_id)
        return False

    def leave(self, spec: Spec, object_id: int) -> None:
        """A result is out of scope, or cannot be lost any more."""
        spec.n_left -= 1
        if spec.items is not None:
            del spec.items[object_id]
        if not spec.n_left:
            self._out.append(spec)
            self._drain()

    def _strip(self, spec: Spec) -> None:
        """What a barred spec would be run with need not stay; an attempt that is under way keeps it."""
        spec.task = msgspec.structs.replace(spec.task, payload=b"", arguments=(), nested=())
        spec.arguments = spec.nested = ()

    def _bar(self, spec: Spec, why_not: str) -> None:
        """The results of this spec cannot be made again from now on."""
        spec.why_not = why_not
        self._strip(spec)
        self._out.append(spec)
        for object_id in list(spec.result_ids):
            record = self._owned.get(object_id)
            if record is not None and record.state == RETIRED:
                self._forget(record)
        self._drain()

    def _drain(self) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        while self._out:
            spec = self._out.popleft()
            if not spec.n_left:
                self.specs.pop(spec.task_id, None)
            if self._live.pop(spec.task_id, None) is not None:
                self._release(spec)
        self._is_draining = False

    def _release(self, spec: Spec) -> None:
        """Give back what a spec holds and needs."""
        self.nbytes -= spec.nbytes
        held, needs = spec.held, spec.needs
        spec.held, spec.needs, spec.nbytes = [], [], 0
        for object_id in needs:
            record = self._owned.get(object_id)
            if self._needs_no_more(spec, object_id) and record is not None and record.state == RETIRED:
                self._forget(record)
        for object_id in held:
            value = self._values[object_id]
            value.n_holds -= 1
            value.specs.pop(spec.task_id, None)
            if not value.n_holds:
                del self._values[object_id]
                self.nbytes -= value.nbytes
        self._references.drop_all(tuple(held))
        template = spec.task.template
        template.n_tasks -= 1
        if template.is_dropped:
            self._templates.forget_if_unused(template)

    def _forget(self, record: OwnedObject) -> None:
        """Nobody will ever need a retired object again."""
        self._references.ownership.collect(record)
        spec = self.specs.get(record.task_id)
        if spec is not None:
            self.leave(spec, record.object_id)

    def _needs_no_more(self, spec: Spec, object_id: int) -> bool:
        """Gives whether no spec needs the object any more."""
        specs = self.needed.get(object_id, {})
        specs.pop(spec.task_id, None)
        if not specs:
            self.needed.pop(object_id, None)
        return not specs

    def hold_value(self, object_id: int) -> None:
        """An object that is needed cannot be made again any more, or need not, as it is inline: its value stays."""
        for task_id in self.needed.pop(object_id, ()):
            spec = self._live[task_id]
            while object_id in spec.needs:
                spec.needs.remove(object_id)
                self._references.hold(object_id)
                self._note_held(spec, object_id)

    def hold_last(self, spec: Spec) -> None:
        """If the task of a spec has been run for the last time, what is needed of its results stays with its value."""
        if self.why_not(spec):
            for object_id in spec.result_ids:
                if object_id in self.needed and self._owned[object_id].state == STORED:
                    self.hold_value(object_id)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for task_id, spec in self.specs.items():
            records = [self._owned.get(object_id) for object_id in spec.result_ids]
            n_left = sum(record is not None and record.state != INLINE for record in records)
            if not n_left or n_left != spec.n_left:
                name = name_of(task_id)
                raise InvariantError(f"The spec of task {name} is kept for {spec.n_left} results, not for {records}.")
            if not spec.is_settled and spec.held + spec.needs:
                raise InvariantError(f"The spec of task {name_of(task_id)} holds what its task holds: {spec}.")
        needs: dict[int, dict[int, None]] = {}
        holds: dict[int, int] = {}
        for task_id, spec in self._live.items():
            for object_id in spec.needs:
                needs.setdefault(object_id, {})[task_id] = None
            for object_id in spec.held:
                increment(holds, object_id, 1)
        if needs != self.needed:
            raise InvariantError(f"Specs need {needs}, and {self.needed} are counted.")
        if holds != {object_id: value.n_holds for object_id, value in self._values.items()}:
            raise InvariantError(f"Specs hold {holds}, and {self._values} are counted.")
        nbytes = sum(spec.nbytes for spec in self._live.values())
        nbytes += sum(value.nbytes for value in self._values.values())
        if self.nbytes != nbytes or self.nbytes > self._nbytes_max:
            raise InvariantError(f"There are {self.nbytes} bytes of lineage, of at most {self._nbytes_max}.")
        for object_id, record in self._owned.items():
            if record.state == RETIRED and object_id not in self.needed:
                raise InvariantError(f"The record of object {name_of(object_id)} is kept, but nobody needs it.")


def _exhausted(n_retries: int) -> str:
    return f"the task has had its {n_retries} retries. Allow more: @remote(max_retries=N), or options(max_retries=N)"
