"""Random user programs: drivers and tasks that do, in random order, everything that user code can do with futures."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from hpcfut.core.events import InventoriesQueried, ResourcesQueried
from hpcfut.model.failure import ENDED, LOST, Failure
from hpcfut.model.template import RESOURCE_UNIT, STREAMING
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Cancelled, Make, Op, Program, Put, Raised, Sleep, Wait
from hpcfut.sim.truth import Spec
from hpcfut.sim.window import NBYTES_STORED

Steps = Generator[Op, Any, None]
Action = Callable[[Frame], Steps]


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What random programs are made of."""

    #: Tasks that the drivers see to it are submitted at least, and the number beyond which nothing is submitted.
    n_tasks_min: int = 50
    n_tasks_max: int = 75
    depth_max: int = 4
    #: Weights of the actions, by name; chances; and what is chosen from for how often a task may be tried again.
    weights: dict[str, int] = {}
    p_raise: float = 0.08
    p_retriable: float = 0.5
    n_retries: tuple[int, ...] = (0, 0, 1, 3)
    p_stored: float = 0.3
    p_stream: float = 0.12
    #: How long user code computes between two ops: usually, and now and then.
    compute_s: float = 200e-6
    compute_long_s: float = 0.03
    #: Names of resources besides CPU that exist on some ranks.
    extra: tuple[str, ...] = ()


class RandomProgram:
    """The script of every driver of one world, and what its tasks do."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.n_tasks = 0
        self._n_queries = 0
        actions: dict[str, tuple[int, Action]] = {
            "submit": (10, self._submit),
            "put": (3, self._put),
            "source": (1, self._source),
            "broadcast": (2, self._broadcast),
            "get": (5, self._get),
            "wait": (3, self._wait),
            "watch": (1, self._watch),
            "poll": (1, self._poll),
            "cancel": (1, self._cancel),
            "release": (4, self._release),
            "copy": (1, self._copy),
            "stash": (1, self._stash),
            "unstash": (1, self._unstash),
            "define": (1, self._define),
            "undefine": (1, self._undefine),
            "compute": (3, self._compute),
            "query": (1, self._query),
            "spawn": (1, self._spawn),
        }
        self._actions: list[Action] = []
        for name, (weight, action) in actions.items():
            self._actions += [action] * mix.weights.get(name, weight)

    # -- bodies ------------------------------------------------------------------------------------------------------

    def driver(self, me: Frame) -> Program:
        """A driver's script."""
        rng, mix = me.rng, self.mix
        while self.n_tasks < mix.n_tasks_min:
            yield from rng.choice(self._actions)(me)
        end = rng.random()
        if end < 0.4 and me.refs:
            yield Wait(list(dict.fromkeys(me.refs)), len(dict.fromkeys(me.refs)))
        elif end < 0.7:
            yield Sleep(rng.random() * 0.1)
        return []

    def task(self, me: Frame) -> Program:
        """What an ordinary task does."""
        rng, mix = me.rng, self.mix
        try:
            for _ in range(rng.randrange(4)):
                yield from rng.choice(self._actions)(me)
            yield from self._compute(me)
        except Cancelled:
            if rng.random() < 0.7:
                raise
        if rng.random() < mix.p_raise:
            raise Raised(is_retriable=rng.random() < mix.p_retriable)
        return [self._make(me) for _ in me.return_ids]

    def leaf(self, me: Frame) -> Program:
        """A task that neither submits nor waits."""
        yield from self._compute(me)
        if me.rng.random() < self.mix.p_raise:
            raise Raised(is_retriable=me.rng.random() < self.mix.p_retriable)
        return [self._make(me) for _ in me.return_ids]

    def holder(self, me: Frame) -> Program:
        """A task that keeps extra resources while it waits for others, which may need them."""
        rng, mix = me.rng, self.mix
        yield from self._compute(me)
        children: list[int] = []
        for _ in range(rng.randrange(3) if me.depth < mix.depth_max and self.n_tasks < mix.n_tasks_max else 0):
            self.n_tasks += 1
            extra = rng.choice((*mix.extra, "")) or "CPU"
            template_id = me.define(resources=((extra, RESOURCE_UNIT),), n_retries_max=rng.randrange(2))
            children += me.submit(
                template_id, rng.choice((self.leaf, self.holder)), children if rng.random() < 0.3 else ()
            )
            me.world_rank.drop_template(template_id)
        if children:
            yield Wait(children, len(children), rng.random() < 0.5, rng.random() < 0.5)
        yield from self._compute(me)
        return [self._make(me) for _ in me.return_ids]

    def generator(self, me: Frame) -> Program:
        """A task whose results come one by one."""
        rng, mix = me.rng, self.mix
        for _ in range(rng.randrange(9)):
            if rng.random() < 0.3:
                yield from rng.choice(self._actions)(me)
            if rng.random() < mix.p_raise / 2:
                raise Raised(is_retriable=rng.random() < mix.p_retriable)
            yield self._make(me)
        return []

    # -- actions -----------------------------------------------------------------------------------------------------

    def _submit(self, me: Frame) -> Steps:
        rng, mix = me.rng, self.mix
        if me.depth >= mix.depth_max or self.n_tasks >= mix.n_tasks_max:
            return
        if rng.random() < mix.p_stream:
            yield from self._consume(me)
            return
        n_calls = 1 if rng.random() < 0.8 else rng.randrange(2, 6)
        template_id, body = self._template(me)
        for _ in range(n_calls):
            if template_id not in me.world_rank.templates:
                break  # Another thread has dropped the function meanwhile.
            self.n_tasks += 1
            arguments = self._choose(me, 2)
            if arguments and rng.random() < 0.05:
                arguments.append(arguments[0])
            me.submit(template_id, body, arguments, self._choose(me, 2))
            if rng.random() < 0.3:
                yield Sleep(rng.random() * 20e-6)

    def _consume(self, me: Frame) -> Steps:
        """Call a generator and take its items; perhaps not all of them."""
        rng = me.rng
        self.n_tasks += 1
        template_id = me.define(
            n_returns=STREAMING,
            n_items_ahead_max=rng.randrange(1, 5),
            n_retries_max=rng.choice(self.mix.n_retries) // 2 * 2,
            nested=self._choose(me, 1),
        )
        spec = me.stream(template_id, self.generator, self._choose(me, 1))
        if rng.random() < 0.5:
            me.world_rank.drop_template(template_id)
        items = list(spec.return_ids)
        try:
            yield from self._take_items(me, spec, items)
        finally:
            # The generator object dies: its producer is not to run on for nobody.
            me.cancel(spec.task_id)
            me.release([object_id for object_id in items if object_id in me.refs])

    def _take_items(self, me: Frame, spec: Spec, items: list[int]) -> Steps:
        rng = me.rng
        told: Failure | None = None
        n_taken = rng.choice((0, 1, 3, 100, 100))
        for index in range(n_taken):
            if rng.random() < 0.1:
                yield from self._await_end(me, spec, items[index:], None)
            answer = yield Wait([items[index]], 1, rng.random() < 0.7, rng.random() < 0.8)
            if isinstance(answer[0][1], Failure):
                told = answer[0][1]
                break
            items += me.advance(spec)
            if rng.random() < 0.7:
                me.release([items[index]])
            if rng.random() < 0.2:
                yield from self._compute(me)
        if told is not None and told.kind not in (ENDED, LOST) and rng.random() < 0.5:
            yield from self._await_end(me, spec, [], told)
        left = [object_id for object_id in items if object_id in me.refs]
        if left and rng.random() < 0.2:
            yield Wait(left, len(left), timeout_s=rng.random() * 0.05)

    def _await_end(self, me: Frame, spec: Spec, items: list[int], told: Failure | None) -> Steps:
        """Wait a moment for the end of a generator, which may be held back for its consumer."""
        end = me.want_end(spec, items, told)
        if me.rng.random() < 0.8:
            yield Wait([end], 1, timeout_s=me.rng.random() * 0.005)
        me.release([end])

    def _put(self, me: Frame) -> Steps:
        contained = self._choose(me, 2)
        if me.rng.random() < self.mix.p_stored:
            yield Put(contained)
        else:
            me.put(contained)

    def _source(self, me: Frame) -> Steps:
        """What each rank reads by itself, as a chunk of a file."""
        if me.rng.random() < 2 * self.mix.p_stored:
            me.put_source(NBYTES_STORED)
        return
        yield

    def _broadcast(self, me: Frame) -> Steps:
        """Give one value, large if any is, to tasks on all ranks."""
        rng, ranks = me.rng, me.world_rank.world.ranks
        if me.depth >= self.mix.depth_max or self.n_tasks + len(ranks) > self.mix.n_tasks_max:
            return
        if self.mix.p_stored:
            yield Put([])
        refs = me.refs[-1:]
        for rank in ranks:
            self.n_tasks += 1
            template_id = me.define(affinity=rank.rank)
            me.submit(template_id, self.leaf, *((refs, ()) if rng.random() < 0.8 else ((), refs)))
            me.world_rank.drop_template(template_id)
            if rng.random() < 0.1:
                yield Sleep(rng.random() * 0.005)

    def _get(self, me: Frame) -> Steps:
        wanted = list(dict.fromkeys(self._choose(me, 4)))
        if wanted:
            yield Wait(wanted, len(wanted), may_run=me.rng.random() < 0.8)

    def _wait(self, me: Frame) -> Steps:
        rng = me.rng
        wanted = list(dict.fromkeys(self._choose(me, 5)))
        if wanted:
            timeout_s = rng.choice((None, 10e-6, 500e-6, 0.02))
            is_fetching = rng.random() < 0.5
            may_run = timeout_s is None and rng.random() < 0.8
            # None wanted: which of them are ready now?
            is_taking = rng.random() < 0.5
            yield Wait(wanted, rng.randrange(len(wanted) + 1), is_fetching, may_run, timeout_s, is_taking)

    def _watch(self, me: Frame) -> Steps:
        """An event loop, or ``as_completed``; left early now and then."""
        rng = me.rng
        wanted = list(dict.fromkeys(self._choose(me, 5)))
        if not wanted:
            return
        is_waiting = rng.random() < 0.5
        watched = me.watch(wanted, is_fetching=rng.random() < 0.5, is_waiting=is_waiting)
        n_looks, pause_s = rng.choice((0, 3, 1_000_000)), 20e-6
        try:
            while watched.left and n_looks:
                yield Sleep(pause_s) if is_waiting else Wait([], 1, may_run=False, timeout_s=pause_s)
                n_looks -= 1
                pause_s = min(2 * pause_s, 0.05)
        finally:
            me.unwatch(watched)

    def _poll(self, me: Frame) -> Steps:
        wanted = list(dict.fromkeys(self._choose(me, 3)))
        for _ in range(3):
            if wanted:
                yield Wait(wanted, len(wanted), may_run=False, timeout_s=0.0)

    def _cancel(self, me: Frame) -> Steps:
        for object_id in self._choose(me, 1):
            me.cancel(object_id, is_recursive=me.rng.random() < 0.5)
        return
        yield

    def _release(self, me: Frame) -> Steps:
        rng = me.rng
        if me.refs:
            n = len(me.refs) if rng.random() < 0.1 else rng.randrange(1, len(me.refs) + 1)
            me.release(rng.sample(me.refs, n))
        return
        yield

    def _copy(self, me: Frame) -> Steps:
        for object_id in self._choose(me, 1):
            me.copy(object_id)
        return
        yield

    def _stash(self, me: Frame) -> Steps:
        for object_id in self._choose(me, 1):
            me.stash(object_id)
        return
        yield

    def _unstash(self, me: Frame) -> Steps:
        findable = me.findable()
        if findable:
            object_id = me.rng.choice(findable)
            me.copy(object_id)
            if me.rng.random() < 0.5:
                me.world_rank.stash.remove(object_id)
                me.world_rank.release_refs([object_id])
        return
        yield

    def _define(self, me: Frame) -> Steps:
        self._new_template(me)
        return
        yield

    def _undefine(self, me: Frame) -> Steps:
        templates = me.world_rank.templates
        if len(templates) > 3:
            me.world_rank.drop_template(me.rng.choice(templates))
        return
        yield

    def _compute(self, me: Frame) -> Steps:
        rng, mix = me.rng, self.mix
        yield Sleep(rng.random() * (mix.compute_long_s if rng.random() < 0.1 else mix.compute_s))

    def _query(self, me: Frame) -> Steps:
        self._n_queries += 1
        kind = ResourcesQueried if self._n_queries % 2 else InventoriesQueried
        me.world_rank.ask(kind(self._n_queries))
        return
        yield

    def _spawn(self, me: Frame) -> Steps:
        rng = me.rng
        if me.depth < self.mix.depth_max and rng.random() < 0.3:
            me.spawn(self._thread, self._choose(me, 2), is_known=rng.random() < 0.5)
        return
        yield

    def _thread(self, me: Frame) -> Program:
        """A thread that user code starts; it may outlive the task that started it."""
        for _ in range(me.rng.randrange(4)):
            yield from me.rng.choice(self._actions)(me)
        return []

    # -- choices -----------------------------------------------------------------------------------------------------

    def _choose(self, me: Frame, n_max: int) -> list[int]:
        """Some of the refs that the code has; more often none or few."""
        n = min(len(me.refs), me.rng.randrange(n_max + 1))
        return me.rng.sample(me.refs, n) if n else []

    def _make(self, me: Frame) -> Make:
        return Make(tuple(self._choose(me, 2)), me.rng.random() < self.mix.p_stored)

    def _template(self, me: Frame) -> tuple[int, Body]:
        """A function to call: usually one that this rank has already."""
        rank, rng = me.world_rank, me.rng
        known = list(filter(me.may_call, rank.templates))
        template_id = rng.choice(known) if known and rng.random() < 0.8 else self._new_template(me)
        is_leaf = any(name != "CPU" for name, _ in rank.world.templates[template_id].resources)
        if is_leaf:
            # What else they might wait for may itself wait for what they hold, in ways that nobody finds out.
            return template_id, self.holder if rng.random() < 0.6 else self.leaf
        return template_id, self.leaf if rng.random() < 0.2 else self.task

    def _new_template(self, me: Frame) -> int:
        rng = me.rng
        draw = rng.random()
        resources: tuple[tuple[str, int], ...] = (("CPU", RESOURCE_UNIT),)
        if draw < 0.1:
            resources = (("CPU", RESOURCE_UNIT // 2),)
        elif draw < 0.15:
            resources = ()
        elif draw < 0.2:
            resources = (("CPU", 2 * RESOURCE_UNIT),)
        elif draw < 0.23:
            resources = (("CPU", 99 * RESOURCE_UNIT),)
        elif draw < 0.45 and self.mix.extra:
            resources = (("CPU", RESOURCE_UNIT), (rng.choice(self.mix.extra), RESOURCE_UNIT))
        options: dict[str, Any] = {}
        if rng.random() < 0.3:
            n_ranks = len(me.world_rank.world.ranks)
            options = {"affinity": rng.randrange(n_ranks + 1), "affinity_soft": rng.random() < 0.5}
        return me.define(
            n_returns=rng.choice((1, 1, 1, 1, 0, 2, 3)),
            resources=resources,
            nested=self._choose(me, 1),
            n_retries_max=rng.choice(self.mix.n_retries),
            spread=rng.random() < 0.2,
            **options,
        )
