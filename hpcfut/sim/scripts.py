"""Small user programs by name, each for a few ranks: short enough that every order of events can be tried.

Rank 0 has the script. Where the others come in is counted round: with two ranks, ranks 2 and 0 are the same one. Each
of them may die, so nothing is sure to be there.
"""

from __future__ import annotations

from typing import Final

from hpcfut.model.template import STREAMING
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Put, Raised, Sleep, get
from hpcfut.sim.window import NBYTES_STORED
from hpcfut.sim.world import Scenario


def on(me: Frame, rank: int, *, n_retries_max: int = 0) -> int:
    """A remote function that runs on this rank, counted round."""
    return me.define(affinity=rank % len(me.world_rank.world.ranks), n_retries_max=n_retries_max)


# -- what tasks do -----------------------------------------------------------------------------------------------------


def echo(me: Frame) -> Program:
    """Returns the refs that it was given, inside its result."""
    return [Make(tuple(me.refs))]
    yield


def forget(me: Frame) -> Program:
    """Returns a large value, and nothing of what it was given."""
    return [Make(is_stored=True)]
    yield


def use(me: Frame) -> Program:
    """Gets the refs that it was given, one by one, and drops each."""
    for object_id in list(me.refs):
        yield get(object_id, may_run=False)
        me.release([object_id])
    return [Make()]


def unwrap(me: Frame) -> Program:
    """Gets what it was given, and what is inside that, down to the bottom."""
    while me.refs:
        outer = me.refs[0]
        yield get(outer, may_run=False)
        me.release([outer])
    return [Make()]


def keep(me: Frame) -> Program:
    """Keeps what it was given in a global variable."""
    for object_id in list(me.refs):
        me.stash(object_id)
    return [Make()]
    yield


def put_one(me: Frame) -> Program:
    """Returns a ref to a value of its own."""
    return [Make((me.put(),))]
    yield


def fail_once(me: Frame) -> Program:
    """Raises in its first attempt."""
    yield Sleep(0)
    if me.attempt == 1:
        raise Raised(is_retriable=True)
    return [Make(tuple(me.refs))]


# -- scripts -----------------------------------------------------------------------------------------------------------


def nested_borrow(me: Frame) -> Program:
    """Two tasks get a ref inside an argument, and look at it while they run."""
    # x = put(1); y, z = use.remote([x]), use.remote([x]); del x; get([y, z])
    x = me.put()
    (y,) = me.submit(on(me, 1), use, nested=[x])
    yield Sleep(0)
    (z,) = me.submit(on(me, 2), use, nested=[x])
    yield Sleep(0)
    me.release([x])
    yield get(y, z, may_run=False)
    return []


def ref_in_a_ref(me: Frame) -> Program:
    """A ref inside a value inside a value is unwrapped by a task."""
    # x = put(1); y = put([x]); del x; z = put([y]); del y; get(unwrap.remote([z]))
    x = me.put()
    y = me.put([x])
    z = me.put([y])
    me.release([x, y])
    (done,) = me.submit(on(me, 1), unwrap, nested=[z])
    yield Sleep(0)
    me.release([z])
    (other,) = me.submit(on(me, 2), echo, nested=[done])
    yield get(other, may_run=False)
    yield get(done, may_run=False)
    return []


def returned_borrow(me: Frame) -> Program:
    """A borrower returns the ref, another one returns that, and the script gets it back."""
    # x = put(1); y = echo.remote([x]); del x; z = echo.remote([y]); del y; [[x]] = get(z); get(x)
    x = me.put()
    (y,) = me.submit(on(me, 1), echo, nested=[x])
    yield Sleep(0)
    me.release([x])
    (z,) = me.submit(on(me, 2), echo, arguments=[y])
    yield Sleep(0)
    me.release([y])
    yield get(z, may_run=False)
    me.release([z])
    yield get(*me.refs, may_run=False)
    return []


def borrow_passed_on(me: Frame) -> Program:
    """A borrower gives a ref to a third rank, which keeps it, while the owner is elsewhere."""

    # [x] = get(put_one.remote())     # x is owned by rank 1
    # done = give.remote([x]); del x  # rank 2 gives x to rank 3, which keeps it in a global variable
    # get(done)
    def give(inner: Frame) -> Program:
        (kept,) = inner.submit(on(inner, 3), keep, nested=inner.refs[:1])
        yield get(kept, may_run=False)
        inner.release(list(inner.refs))
        return [Make()]

    (outer,) = me.submit(on(me, 1), put_one)
    yield get(outer, may_run=False)
    given = [object_id for object_id in me.refs if object_id != outer]
    (done,) = me.submit(on(me, 2), give, nested=given)
    yield Sleep(0)
    me.release([outer, *given])
    yield get(done, may_run=False)
    return []


def generator(me: Frame) -> Program:
    """Items hold refs; the consumer passes one on, and drops the generator before its end."""

    # items = f.remote(); x = next(items); done = use.remote([get(x)]); del x; next(items); del items
    def f(inner: Frame) -> Program:
        for _ in range(5):
            yield Make((inner.put(),))
        return []

    rank = 1 % len(me.world_rank.world.ranks)
    spec = me.stream(me.define(affinity=rank, n_returns=STREAMING, n_items_ahead_max=2), f)
    items = list(spec.return_ids)
    yield get(items[0], may_run=False)
    items += me.advance(spec)
    inside = [object_id for object_id in me.refs if object_id not in items]
    (done,) = me.submit(on(me, 2), use, nested=inside)
    me.release(inside)
    yield get(items[1], done, may_run=False)
    me.cancel(spec.task_id)
    me.release(items)
    return []


def cancel(me: Frame) -> Program:
    """A task is cancelled before, while, between, or after its attempts; another one waits for its result."""
    # x = fail_once.remote(); y = forget.remote(x); cancel(x); get([x, y])
    (x,) = me.submit(on(me, 1, n_retries_max=1), fail_once)
    (y,) = me.submit(on(me, 2), forget, arguments=[x])
    yield Sleep(0)
    me.cancel(x)
    yield get(x, y, may_run=False)
    return []


def retry(me: Frame) -> Program:
    """A borrow outlives the attempt that it was made for."""
    # x = put(1); y = fail_once.remote([x]); del x; [x] = get(y); get(use.remote([x]))    # max_retries=1, anywhere
    x = me.put()
    (y,) = me.submit(me.define(n_retries_max=1), fail_once, nested=[x])
    yield Sleep(0)
    me.release([x])
    yield get(y, may_run=False)
    me.release([y])
    (done,) = me.submit(on(me, 1), use, nested=me.refs[:])
    yield get(done, may_run=False)
    return []


def lend(me: Frame) -> Program:
    """A task returns a large value of its own, and one that holds it."""

    # @remote(rank 1) def f(): x = put(large); return [echo.remote([x]), x]    # echo on rank 2
    # refs = get(f.remote()); get(refs)
    def f(inner: Frame) -> Program:
        yield Put()
        x = inner.refs[-1]
        (y,) = inner.submit(on(inner, 2), echo, nested=[x])
        return [Make((y, x))]

    (outer,) = me.submit(on(me, 1), f)
    yield get(outer, may_run=False)
    me.release([outer])
    yield get(*me.refs, may_run=False)
    return []


def fetch(me: Frame) -> Program:
    """Tasks on all ranks want one large result, which the script drops as soon as it has it."""
    # x = forget.remote(); y, z = echo.remote(x), echo.remote(x); get(x); del x; get([y, z])
    (x,) = me.submit(on(me, 1), forget)
    (y,) = me.submit(on(me, 0), echo, arguments=[x])
    (z,) = me.submit(on(me, 2), echo, arguments=[x])
    yield get(x, may_run=False)
    me.release([x])
    yield get(y, z, may_run=False)
    return []


def share(me: Frame) -> Program:
    """Both ranks of another host want one large value, which its owner has dropped."""
    # x = put(large); forget.remote(x); forget.remote(x); del x    # on both ranks of the other host
    yield Put()
    x = me.refs[-1]
    for rank in (2, 3):
        me.submit(on(me, rank), forget, arguments=[x])
    me.release([x])
    return []


def scatter(me: Frame) -> Program:
    """Tasks go wherever there is room, the rank of the script included."""
    # get([forget.remote() for _ in range(3)])    # wherever there is room
    template_id = me.define()
    refs = [me.submit(template_id, forget)[0] for _ in range(3)]
    yield get(*refs)
    return []


def scatter_two(me: Frame) -> Program:
    """The same with two tasks."""
    template_id = me.define()
    refs = [me.submit(template_id, forget)[0] for _ in range(2)]
    yield get(*refs)
    return []


def recall(me: Frame) -> Program:
    """A rank needs the room of a large value that another one reads in place."""
    # x = forget.remote(); y, w = echo.remote(x), forget.remote(); get(x); get([y, w])    # x, w: rank 1, room for one
    (x,) = me.submit(on(me, 1), forget)
    (y,) = me.submit(on(me, 2), echo, arguments=[x])
    (w,) = me.submit(on(me, 1), forget)
    yield get(x, may_run=False)
    yield get(y, w, may_run=False)
    return []


def recall_pair(me: Frame) -> Program:
    """Two ranks need the room of large values that a third one reads in place, both at a time."""
    # x, y = forget.remote(), forget.remote(); z = echo.remote(x, y); w, v = forget.remote(), forget.remote()
    # get(x); get([z, w, v])
    (x,) = me.submit(on(me, 1), forget)
    (y,) = me.submit(on(me, 2), forget)
    (z,) = me.submit(on(me, 3), echo, arguments=[x, y])
    (w,) = me.submit(on(me, 1), forget)
    (v,) = me.submit(on(me, 2), forget)
    yield get(x, may_run=False)
    yield get(z, w, v, may_run=False)
    return []


#: One host, and room for one large value on each rank.
NARROW: Final = Scenario(n_ranks_on_host=4, nbytes_store=NBYTES_STORED * 3 // 2)

#: Name → the script, the world, and for how many ranks it is interesting.
SCRIPTS: Final[dict[str, tuple[Body, Scenario, tuple[int, ...]]]] = {
    "nested borrow": (nested_borrow, Scenario(), (2, 3)),
    "ref in a ref": (ref_in_a_ref, Scenario(), (2, 3)),
    "returned borrow": (returned_borrow, Scenario(), (2, 3)),
    "borrow passed on": (borrow_passed_on, Scenario(), (2, 3, 4)),
    "generator": (generator, Scenario(), (2, 3)),
    "cancel": (cancel, Scenario(), (2, 3)),
    "retry": (retry, Scenario(), (2, 3)),
    "lend": (lend, Scenario(), (2, 3)),
    "fetch": (fetch, Scenario(), (2, 3)),
    "share": (share, Scenario(), (4,)),
    "scatter": (scatter, Scenario(), (2, 3)),
    "scatter two": (scatter_two, Scenario(), (3,)),
    "recall": (recall, NARROW, (3,)),
    "recall a pair": (recall_pair, NARROW, (4,)),
}
