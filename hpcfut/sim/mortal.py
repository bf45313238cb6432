"""Small user programs for jobs in which ranks die: each is about something that may be half done then.

Tasks may be tried again, and go to the rank that they are meant for only as long as that lives.
"""

from __future__ import annotations

from typing import Final

from hpcfut.model.config import Config
from hpcfut.model.template import STREAMING
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Put, Sleep, get
from hpcfut.sim.scripts import echo, forget, keep, put_one, use
from hpcfut.sim.world import Scenario

#: Meanwhile a rank that has died is replaced.
JOINED_S: Final = 0.02


def near(me: Frame, rank: int, *, n_retries_max: int = 1) -> int:
    """A remote function that runs on this rank, counted round, or elsewhere if that is dead."""
    n_ranks = len(me.world_rank.world.ranks)
    return me.define(affinity=rank % n_ranks, affinity_soft=True, n_retries_max=n_retries_max)


def try_again(me: Frame) -> Program:
    """A task is tried again where its rank dies; its argument is covered once more."""
    # x = put(1); y = echo.remote([x]); del x; [x] = get(y); get(x)
    x = me.put()
    (y,) = me.submit(near(me, 1), echo, nested=[x])
    yield Sleep(0)
    me.release([x])
    yield get(y, may_run=False)
    me.release([y])
    if me.refs:
        yield get(*me.refs, may_run=False)
    return []


def make_again(me: Frame) -> Program:
    """A large result dies with the rank that stored it, before, while, or after it is read elsewhere."""
    # x = forget.remote(); y = echo.remote(x); get(x); del x; get(y)
    (x,) = me.submit(near(me, 1, n_retries_max=2), forget)
    (y,) = me.submit(near(me, 2), echo, arguments=[x])
    yield get(x, may_run=False)
    me.release([x])
    yield get(y, may_run=False)
    return []


def make_chain_again(me: Frame) -> Program:
    """What a lost result was made from is gone, and must be made before."""
    # x = forget.remote(); y = forget.remote(x); del x; get(y)    # both are stored on rank 1
    template_id = near(me, 1, n_retries_max=2)
    (x,) = me.submit(template_id, forget)
    (y,) = me.submit(template_id, forget, arguments=[x])
    me.release([x])
    yield Sleep(0)
    yield get(y, may_run=False)
    return []


def hand_on(me: Frame) -> Program:
    """A task hands what it is covered for to a third rank, which keeps it."""

    # x = put(1); done = give.remote([x]); del x; get(done)
    # @remote def give(x): get(keep.remote([x]))
    def give(inner: Frame) -> Program:
        (kept,) = inner.submit(near(inner, 2, n_retries_max=0), keep, nested=inner.refs[:1])
        inner.release(inner.refs[:1])
        yield get(kept, may_run=False)
        return [Make()]

    x = me.put()
    (done,) = me.submit(near(me, 1), give, nested=[x])
    yield Sleep(0)
    me.release([x])
    yield get(done, may_run=False)
    return []


def hand_on_twice(me: Frame) -> Program:
    """The same, by way of two ranks."""

    # x = put(1); done = give.remote([x]); del x; get(done)
    # @remote def give(x): get(give_on.remote([x]))
    # @remote def give_on(x): get(keep.remote([x]))
    def give(inner: Frame) -> Program:
        rank = inner.depth + 1
        body = give if rank < 3 else keep
        (done,) = inner.submit(near(inner, rank, n_retries_max=0), body, nested=inner.refs[:1])
        inner.release(inner.refs[:1])
        yield get(done, may_run=False)
        return [Make()]

    x = me.put()
    (done,) = me.submit(near(me, 1, n_retries_max=0), give, nested=[x])
    yield Sleep(0)
    me.release([x])
    yield get(done, may_run=False)
    return []


def owner_dies(me: Frame) -> Program:
    """A rank returns what it owns, one of it stored elsewhere; others use it."""

    # @remote def f(): return [put(1), forget.remote()]
    # refs = get(f.remote()); done = use.remote(refs); get(refs); get(done)
    def f(inner: Frame) -> Program:
        (y,) = inner.submit(near(inner, 2), forget)
        return [Make((inner.put(), y))]
        yield

    (outer,) = me.submit(near(me, 1, n_retries_max=0), f)
    yield get(outer, may_run=False)
    me.release([outer])
    refs = list(me.refs)
    (done,) = me.submit(near(me, 2), use, nested=refs)
    if refs:
        yield get(*refs, may_run=False)
    me.release(refs)
    yield get(done, may_run=False)
    return []


def owner_of_a_put_dies(me: Frame) -> Program:
    """The same, of what the rank has put, and another one uses."""
    # refs = get(put_one.remote()); done = use.remote(refs); del refs; get(done)
    (outer,) = me.submit(near(me, 1, n_retries_max=0), put_one)
    yield get(outer, may_run=False)
    me.release([outer])
    refs = list(me.refs)
    (done,) = me.submit(near(me, 2), use, nested=refs)
    me.release(refs)
    yield get(done, may_run=False)
    return []


def owner_of_a_result_dies(me: Frame) -> Program:
    """The same, of a result that another one stores."""

    # @remote def f(): return [forget.remote()]
    # refs = get(f.remote()); get(refs)
    def f(inner: Frame) -> Program:
        (y,) = inner.submit(near(inner, 2), forget)
        return [Make((y,))]
        yield

    (outer,) = me.submit(near(me, 1, n_retries_max=0), f)
    yield get(outer, may_run=False)
    me.release([outer])
    if me.refs:
        yield get(*me.refs, may_run=False)
    return []


def orphan(me: Frame) -> Program:
    """A child outlives the task that has called it, and has called others itself."""

    # @remote def parent(x): get(child.remote([x]))
    # @remote def child(x): put(large); get(use.remote([x])); return large
    def parent(inner: Frame) -> Program:
        (done,) = inner.submit(near(inner, 2), child, nested=inner.refs[:])
        yield get(done, may_run=False)
        return [Make()]

    def child(inner: Frame) -> Program:
        (x,) = inner.refs
        yield Put()
        (done,) = inner.submit(near(inner, 0), use, nested=[x])
        yield get(done, may_run=False)
        return [Make(is_stored=True)]

    x = me.put()
    (done,) = me.submit(near(me, 1), parent, nested=[x])
    me.release([x])
    yield get(done, may_run=False)
    return []


def items(me: Frame) -> Program:
    """A generator is run again, and makes the items that are known for nobody."""

    # for item in f.remote(): get(item)    # f yields a large item, and one with a ref
    def f(inner: Frame) -> Program:
        yield Make(is_stored=True)
        yield Make((inner.put(),))
        return []

    n_ranks = len(me.world_rank.world.ranks)
    template_id = me.define(
        affinity=1 % n_ranks, affinity_soft=True, n_returns=STREAMING, n_items_ahead_max=2, n_retries_max=1
    )
    spec = me.stream(template_id, f)
    for object_id in spec.return_ids[:2]:
        yield get(object_id, may_run=False)
    me.cancel(spec.task_id)
    me.release(list(me.refs))
    return []


def spare(me: Frame) -> Program:
    """A spare takes the place of the dead."""
    # refs = [forget.remote() for _ in range(2)]; get(refs)
    template_id = me.define(n_retries_max=1)
    refs = [me.submit(template_id, put_one)[0] for _ in range(2)]
    yield get(*refs)
    return []


def replaced(me: Frame) -> Program:
    """Tasks go to all ranks while one joins, and when it takes tasks; what they were given is passed on and kept."""

    # x = put(1); done = [give.remote([x]) for _ in range(2)]; get(done); sleep; the same again
    # @remote def give(x): get(keep.remote([x]))
    def give(inner: Frame) -> Program:
        (kept,) = inner.submit(inner.define(n_retries_max=1, spread=True), keep, nested=inner.refs[:1])
        inner.release(inner.refs[:1])
        yield get(kept, may_run=False)
        return [Make(is_stored=True)]

    template_id = me.define(n_retries_max=3, spread=True)
    x = me.put()
    for _ in range(2):
        done = [me.submit(template_id, give, nested=[x])[0] for _ in range(2)]
        yield get(*done, may_run=False)
        me.release(done)
        yield Sleep(JOINED_S)
    me.release([x])
    return []


#: One of the ranks is kept aside.
WITH_SPARE: Final = Scenario(n_spares=1)
#: Ranks that die are replaced.
WITH_REPLACEMENTS: Final = Scenario(config=Config(n_respawns_minute_max=30), spawn_s=1e-3)

#: As ``SCRIPTS``, to be explored with deaths.
MORTAL: Final[dict[str, tuple[Body, Scenario, tuple[int, ...]]]] = {
    "try again": (try_again, Scenario(), (2, 3)),
    "make again": (make_again, Scenario(), (2, 3)),
    "make chain again": (make_chain_again, Scenario(), (2, 3)),
    "hand on": (hand_on, Scenario(), (3, 4)),
    "hand on twice": (hand_on_twice, Scenario(), (4,)),
    "owner dies": (owner_dies, Scenario(), (2, 3)),
    "owner of a put dies": (owner_of_a_put_dies, Scenario(), (3,)),
    "owner of a result dies": (owner_of_a_result_dies, Scenario(), (3,)),
    "orphan": (orphan, Scenario(), (2, 3)),
    "items": (items, Scenario(), (2, 3)),
    "spare": (spare, WITH_SPARE, (3,)),
    "replaced": (replaced, WITH_REPLACEMENTS, (2, 3)),
    "try again and be replaced": (try_again, WITH_REPLACEMENTS, (2,)),
    "make again and be replaced": (make_again, WITH_REPLACEMENTS, (2,)),
}
