"""Races that other implementations of ownership were caught in: what their users ran, as small programs.

Each is named by the number of an issue of ray-project/ray, where borrowed refs were counted wrong because two things
came in an order that nobody had thought of.
"""

from __future__ import annotations

from typing import Final

from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Sleep, get
from hpcfut.sim.scripts import echo, on, put_one, unwrap, use


def nested_in_the_result(me: Frame) -> Program:
    """Refs that a task got inside one result come back to it inside another, by way of an argument."""

    # @remote def test(): [x] = get(put_one.remote()); y = echo.remote([x]); del x; [x] = get(y); get(x)
    def test(inner: Frame) -> Program:
        (made,) = inner.submit(on(inner, 2), put_one)
        yield get(made, may_run=False)
        inner.release([made])
        (y,) = inner.submit(on(inner, 2), echo, nested=inner.refs[:])
        yield Sleep(0)
        inner.release([object_id for object_id in inner.refs if object_id != y])
        yield get(y, may_run=False)
        inner.release([y])
        yield get(*inner.refs, may_run=False)
        return [Make()]

    (done,) = me.submit(on(me, 1), test)
    yield get(done, may_run=False)
    return []


def nested_in_an_inline_argument(me: Frame) -> Program:
    """A borrower gets a, which holds b, and passes a on as an argument, inline; then it has dropped all it held."""

    # b = put(1); a = put([b]); del b; w.remote([a]); del a
    # @remote def w(a): [b] = get(a); del b; y = use.remote(a); del a; get(y)
    def w(inner: Frame) -> Program:
        (a,) = inner.refs
        yield get(a, may_run=False)
        inner.release([object_id for object_id in inner.refs if object_id != a])
        (y,) = inner.submit(on(inner, 2), use, arguments=[a])
        yield Sleep(0)
        inner.release([a])
        yield get(y, may_run=False)
        return [Make()]

    b = me.put()
    a = me.put([b])
    me.release([b])
    (done,) = me.submit(on(me, 1), w, nested=[a])
    me.release([a])
    yield get(done, may_run=False)
    return []


def dropped_at_once(me: Frame) -> Program:
    """Borrowers get a, which holds b, and drop both at once, while the owner drops them too."""

    # a = put([put(1)]); done = look.remote([a]), look.remote([a]); del a; get(done)
    def look(inner: Frame) -> Program:
        yield get(inner.refs[0], may_run=False)
        inner.release(list(inner.refs))
        yield Sleep(0)
        return [Make()]

    b = me.put()
    a = me.put([b])
    me.release([b])
    (y,) = me.submit(on(me, 1), look, nested=[a])
    (z,) = me.submit(on(me, 2), look, nested=[a])
    yield Sleep(0)
    me.release([a])
    yield get(y, z, may_run=False)
    return []


def two_tasks_on_one_rank(me: Frame) -> Program:
    """Two tasks of one rank are given a, which holds b: one begins while the other is being forgotten."""
    # a = put([put(1)]); done = unwrap.remote([a]), unwrap.remote([a]); del a; get(done)    # both on rank 1
    b = me.put()
    a = me.put([b])
    me.release([b])
    template_id = on(me, 1)
    done = [me.submit(template_id, unwrap, nested=[a])[0] for _ in range(2)]
    me.release([a])
    yield get(*done, may_run=False)
    return []


def deep_recursion(me: Frame) -> Program:
    """Each task returns the ref of the next one; the script goes down the chain."""

    # @remote def f(n): return f.remote(n + 1) if n < 3 else n
    # r = f.remote(1); while is_ref(r): r = get(r)
    def f(inner: Frame) -> Program:
        if inner.depth == 3:
            return [Make()]
        (child,) = inner.submit(on(inner, inner.rank + 1), f)
        return [Make((child,))]
        yield

    me.submit(on(me, 1), f)
    yield from unwrap(me)
    return []


def unpickled_twice(me: Frame) -> Program:
    """One value holds b, b holds c: a borrower gets b twice, and uses c when it has dropped all that held it."""

    # c = put(1); b = put([c]); a = put([b]); del b, c; look.remote([a]); del a
    # @remote def look(a): [b] = get(a); [c] = get(b); del c, a; [c] = get(b); del b; get(c)
    def look(inner: Frame) -> Program:
        (a,) = inner.refs
        yield get(a, may_run=False)
        b = inner.refs[-1]
        yield get(b, may_run=False)
        c = inner.refs[-1]
        inner.release([c, a])
        yield Sleep(0)
        yield get(b, may_run=False)
        inner.release([b])
        yield get(c, may_run=False)
        return [Make()]

    c = me.put()
    b = me.put([c])
    a = me.put([b])
    me.release([b, c])
    (done,) = me.submit(on(me, 1), look, nested=[a])
    me.release([a])
    yield get(done, may_run=False)
    return []


def through_one_rank_twice(me: Frame) -> Program:
    """A ref goes through rank 1 in a result, and comes back there as an argument before its owner has heard of that."""
    # [x] = get(put_one.remote()); y = echo.remote([x]); del x; [x] = get(y); del y; z = use.remote([x], x); get(z)
    (made,) = me.submit(on(me, 2), put_one)
    yield get(made, may_run=False)
    inside = [object_id for object_id in me.refs if object_id != made]
    template_id = on(me, 1)
    (y,) = me.submit(template_id, echo, nested=inside)
    me.release([made, *inside])
    yield get(y, may_run=False)
    me.release([y])
    inside = list(me.refs)
    (z,) = me.submit(template_id, use, inside, inside)
    yield Sleep(0)
    me.release(inside)
    yield get(z, may_run=False)
    return []


RACES: Final[dict[str, Body]] = {
    "ray 17553": nested_in_the_result,
    "ray 17719": nested_in_an_inline_argument,
    "ray 18552": dropped_at_once,
    "ray 18557": two_tasks_on_one_rank,
    "ray 18723": deep_recursion,
    "ray 18751": unpickled_twice,
    "ray 19659": through_one_rank_twice,
}
