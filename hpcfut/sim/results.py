"""What the tasks of one virtual rank make: results, items, and what they put."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcfut.core import events as e
from hpcfut.model.ids import name_of
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Make, Put
from hpcfut.sim.truth import Value
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.threads import Threads


class Results:
    """Stores them, and tells the core."""

    def __init__(self, rank: SimRank, threads: Threads) -> None:
        self._rank = rank
        self._world = rank.world
        self._threads = threads

    def _store(self, frame: Frame, values: dict[int, Value], then: Callable[[list[Result]], None]) -> None:
        """Store values one after the other; the frame gives way until there is room for all of them."""
        left, results = deque(values.items()), list[Result]()
        frame.is_writing = True

        def go_on(result: Result | None) -> None:
            if result is not None:
                results.append(result)
            if left:
                self._rank.writers.seal(*left.popleft(), go_on)
            elif self._rank.ended is None and not self._rank.is_dead:
                frame.is_writing = False
                then(results)

        go_on(None)

    def put(self, frame: Frame, op: Put) -> None:
        """User code puts a large value."""
        object_id, value = frame.new_value(op.contained, is_stored=True)

        def go_on(results: list[Result]) -> None:
            frame.note_put(object_id, results[0])
            self._world.schedule_step(frame.thread, 0.0)

        self._store(frame, {object_id: value}, go_on)

    def make_item(self, frame: Frame, op: Make) -> None:
        """A generator yields."""
        object_id = frame.item_ids.popleft()
        frame.n_made += 1
        if not object_id:
            self._has_made(frame, 0, Result(b"", 0, ()))
            return
        payload = f"item {name_of(object_id)}, attempt {frame.attempt}".encode()
        value = Value(payload, op.contained, op.is_stored, frame.task_id, frame.n_made, rank=self._rank.rank)
        self._world.truth.add(object_id, value)
        self._store(frame, {object_id: value}, lambda results: self._has_made(frame, object_id, results[0]))

    def _has_made(self, frame: Frame, object_id: int, result: Result) -> None:
        self._rank.post(e.RunYielded(frame.task_id, object_id, result))
        if not frame.item_ids and not frame.is_interrupted:
            # It is not asked for the next item before there is a name for it.
            frame.is_held_back = True
            frame.n_waiting += 1
            self._rank.post(e.RunHeldBack(frame.task_id))
            return
        self._world.schedule_step(frame.thread, self._world.rng.random() * 50e-6)

    def make_all(self, frame: Frame, made: tuple[Make, ...]) -> None:
        """A task returns; a thread that it started just ends."""
        if frame.spec is None:
            self._threads.leave(frame, frame.refs)
            return
        values = {}
        for index, (object_id, make) in enumerate(zip(frame.return_ids, made, strict=False)):
            payload = f"result {name_of(object_id)}, attempt {frame.attempt}".encode()
            value = Value(payload, make.contained, make.is_stored, frame.task_id, index, rank=self._rank.rank)
            values[object_id] = value
            self._world.truth.add(object_id, value)
        self._store(frame, values, lambda results: self._has_returned(frame, made, results))

    def _has_returned(self, frame: Frame, made: tuple[Make, ...], results: list[Result]) -> None:
        assert frame.spec is not None
        # Local variables that are not part of the result may die before it is sent.
        early = []
        if frame.rng.random() < 0.5:
            kept = {object_id for make in made for object_id in make.contained}
            early = [object_id for object_id in frame.refs if object_id not in kept]
            frame.refs = [object_id for object_id in frame.refs if object_id in kept]
            self._rank.release_refs(early)
        self._rank.post(e.RunReturned(frame.task_id, tuple(results)))
        frame.spec.has_succeeded = True
        self._threads.leave(frame, frame.refs)
