"""Small programs in every order of events that makes a difference, under the eyes of every checker."""

from __future__ import annotations

import pytest

from hpcfut.core.references import References
from hpcfut.model.template import STREAMING
from hpcfut.sim.explorer import Explorer
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Put, Raised, Sleep, get
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.window import NBYTES_STORED
from hpcfut.sim.world import Scenario


def echo(me: Frame) -> Program:
    """Returns the refs that it was given, inside its result."""
    return [Make(tuple(me.refs))]
    yield


def forget(me: Frame) -> Program:
    """Returns a large value, and nothing of what it was given."""
    return [Make(is_stored=True)]
    yield


def fail_once(me: Frame) -> Program:
    """Raises in its first attempt."""
    yield Sleep(0)
    if me.attempt == 1:
        raise Raised(is_retriable=True)
    return [Make()]


def borrow(me: Frame) -> Program:
    # x = put(1); y1, y2 = echo.remote([x]), echo.remote([x]); del x; z = echo.remote([y1, y2]); del y1, y2; get(z)
    x = me.put()
    to_1, to_2 = me.define(affinity=1), me.define(affinity=2)
    (y1,) = me.submit(to_1, echo, nested=[x])
    (y2,) = me.submit(to_2, echo, nested=[x])
    me.release([x])
    (z,) = me.submit(to_2, echo, [y1], [y2])
    me.release([y1, y2])
    yield get(z, may_run=False)
    return []


def lend(me: Frame) -> Program:
    # @remote(rank 1) def f(): x = put(1); return [echo.remote([x]), x]    # on rank 2
    # refs = get(f.remote()); get(refs)
    def f(inner: Frame) -> Program:
        yield Put()
        x = inner.refs[-1]
        (y,) = inner.submit(inner.define(affinity=2), echo, nested=[x])
        return [Make((y, x))]

    (outer,) = me.submit(me.define(affinity=1), f)
    yield get(outer, may_run=False)
    me.release([outer])
    yield get(*me.refs, may_run=False)
    return []


def pass_on(me: Frame) -> Program:
    # x = get(make.remote())          # x is owned by rank 3
    # done = give.remote([x]); del x  # rank 1 gives x to rank 2, which keeps it in a global variable
    # get(done)
    def make(inner: Frame) -> Program:
        return [Make((inner.put(),))]
        yield

    def keep(inner: Frame) -> Program:
        inner.stash(inner.refs[0])
        return [Make()]
        yield

    def give(inner: Frame) -> Program:
        (kept,) = inner.submit(inner.define(affinity=2), keep, nested=inner.refs[:1])
        yield get(kept, may_run=False)
        inner.release(list(inner.refs))
        return [Make()]

    (outer,) = me.submit(me.define(affinity=3), make)
    yield get(outer, may_run=False)
    (x,) = (object_id for object_id in me.refs if object_id != outer)
    (done,) = me.submit(me.define(affinity=1), give, nested=[x])
    me.release([outer, x])
    yield get(done, may_run=False)
    return []


def cancel(me: Frame) -> Program:
    # x = f.remote(); y = g.remote(x); cancel(x); get([x, y])
    to_1 = me.define(affinity=1, n_retries_max=1)
    (x,) = me.submit(to_1, fail_once)
    (y,) = me.submit(to_1, forget, arguments=[x])
    yield Sleep(0)
    me.cancel(x)
    yield get(x, y, may_run=False)
    return []


def fetch(me: Frame) -> Program:
    # x = f.remote(); y, z = echo.remote(x), echo.remote(x); get(x); del x; get([y, z])
    (x,) = me.submit(me.define(affinity=1), forget)
    (y,) = me.submit(me.define(affinity=0), echo, arguments=[x])
    (z,) = me.submit(me.define(affinity=2), echo, arguments=[x])
    yield get(x, may_run=False)
    me.release([x])
    yield get(y, z, may_run=False)
    return []


def share(me: Frame) -> Program:
    # x = put(large); forget.remote(x); forget.remote(x); del x    # on both ranks of the other host
    yield Put()
    x = me.refs[-1]
    for rank in (2, 3):
        me.submit(me.define(affinity=rank), forget, arguments=[x])
    me.release([x])
    return []


def consume(me: Frame) -> Program:
    # items = f.remote(); next(items); next(items); del items    # f would make five
    def f(inner: Frame) -> Program:
        for _ in range(5):
            yield Make((inner.put(),))
        return []

    spec = me.stream(me.define(affinity=1, n_returns=STREAMING, n_items_ahead_max=2), f)
    items = list(spec.return_ids)
    for index in range(2):
        yield get(items[index], may_run=False)
        items += me.advance(spec)
    me.cancel(spec.task_id)
    me.release(items)
    return []


def scatter(me: Frame) -> Program:
    # get([f.remote() for _ in range(3)])    # wherever there is room
    template_id = me.define()
    refs = [me.submit(template_id, forget)[0] for _ in range(3)]
    yield get(*refs)
    return []


def recall(me: Frame) -> Program:
    # x = f.remote(); y, w = echo.remote(x), f.remote(); get(x); get([y, w])    # x and w on rank 1, with room for one
    to_1 = me.define(affinity=1)
    (x,) = me.submit(to_1, forget)
    (y,) = me.submit(me.define(affinity=2), echo, arguments=[x])
    (w,) = me.submit(to_1, forget)
    yield get(x, may_run=False)
    yield get(y, w, may_run=False)
    return []


def recall_pair(me: Frame) -> Program:
    # x, y = f.remote(), f.remote(); z = echo.remote(x, y); w, v = f.remote(), f.remote(); get(x); get([z, w, v])
    to_1, to_2 = me.define(affinity=1), me.define(affinity=2)
    (x,) = me.submit(to_1, forget)
    (y,) = me.submit(to_2, forget)
    (z,) = me.submit(me.define(affinity=3), echo, arguments=[x, y])
    (w,) = me.submit(to_1, forget)
    (v,) = me.submit(to_2, forget)
    yield get(x, may_run=False)
    yield get(z, w, v, may_run=False)
    return []


#: One host, and room for one large value on each rank.
NARROW = Scenario(n_ranks_on_host=4, nbytes_store=NBYTES_STORED * 3 // 2)

PROGRAMS: dict[str, tuple[int, Body] | tuple[int, Body, Scenario]] = {
    "borrow": (3, borrow),
    "lend": (3, lend),
    "pass on": (4, pass_on),
    "cancel": (2, cancel),
    "fetch": (3, fetch),
    "share": (4, share),
    "consume": (2, consume),
    "scatter": (2, scatter),
    "recall": (3, recall, NARROW),
    "recall a pair": (4, recall_pair, NARROW),
}


#: More orders than any of these programs has.
N_ORDERS_MAX = 10_000


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_order_is_right(name: str) -> None:
    explorer = Explorer(*PROGRAMS[name])
    assert explorer.explore(N_ORDERS_MAX), "There are more orders than were tried."
    print(f"{explorer.n_runs} orders")
    assert explorer.n_runs > 1


def test_an_order_that_breaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rule 4 of borrowing: who reports a borrower holds on until the owner has counted it.
    def report(self: References, object_id: int, borrower: int) -> None:
        n_held = self.ensure(object_id).n_uses
        right(self, object_id, borrower)
        self.ensure(object_id).n_uses = n_held

    right = References.report
    monkeypatch.setattr(References, "report", report)
    monkeypatch.setattr(References, "on_borrow_confirmed", lambda self, message: None)
    explorer = Explorer(*PROGRAMS["pass on"])
    with pytest.raises(SimulationError, match=r"its owner forgot it|was collected|counted 'ref to a collected object'"):
        explorer.explore(N_ORDERS_MAX)
