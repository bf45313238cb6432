"""Refs: as arguments, inside values, returned, passed on, captured."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from typing import Any

import hpcfut
from hpcfut.exceptions import TaskError
from tests.mpi.support import on_rank, raised, same

Ref = hpcfut.ObjectRef[Any]

LARGE = 150_000


@hpcfut.remote
def add(a: Any, b: Any) -> Any:
    return a + b


@hpcfut.remote
def fail(text: str) -> None:
    raise LookupError(text)


@hpcfut.remote
def kinds(*args: Any, **kwargs: Any) -> list[str]:
    return [type(value).__name__ for value in [*args, *kwargs.values()]]


@hpcfut.remote
def first_of(refs: Any) -> Any:
    ref: Ref = hpcfut.get(refs[0])
    return ref


@hpcfut.remote
def put_here(value: Any) -> Ref:
    return hpcfut.put(value)


@hpcfut.remote
def submit_here(value: Any) -> Ref:
    return same.remote(value)


def case_refs_as_arguments_are_replaced_by_values() -> None:
    ref = same.remote(1)
    assert hpcfut.get(add.remote(ref, 2)) == 3
    assert hpcfut.get(add.remote(ref, b=ref)) == 2
    assert hpcfut.get(add.remote(a=same.remote([1]), b=hpcfut.put([2]))) == [1, 2]
    assert hpcfut.get(kinds.remote(ref, ref, 5, x=ref, y=hpcfut.put("text"))) == ["int", "int", "int", "int", "str"]


def case_the_same_ref_twice_is_the_same_value() -> None:
    ref = hpcfut.put({"key": bytes(LARGE)})
    is_same = hpcfut.remote(lambda a, b, c: (a is b, b is c, len(a["key"])))
    assert hpcfut.get(is_same.remote(ref, ref, c=ref))[2] == LARGE


def case_a_ref_whose_value_is_none() -> None:
    assert hpcfut.get(same.remote(hpcfut.put(None))) is None
    assert hpcfut.get(kinds.remote(same.remote(None))) == ["NoneType"]


def case_refs_inside_values_are_not_replaced() -> None:
    ref = hpcfut.put("value")
    assert hpcfut.get(kinds.remote([ref], {"a": ref}, (ref,))) == ["list", "dict", "tuple"]
    for inside in ([ref], (ref,), {0: ref}, {0: [ref]}):
        outer = hpcfut.get(same.remote(inside))
        found = outer[0][0] if isinstance(outer[0], list) else outer[0]
        assert isinstance(found, hpcfut.ObjectRef)
        assert found == ref
        assert hash(found) == hash(ref)
        assert hpcfut.get(found) == "value"
    assert hpcfut.get(first_of.remote([ref])) == "value"


def case_a_chain_of_dependents() -> None:
    ref = same.remote(0)
    for _ in range(100):
        ref = add.remote(ref, 1)
    assert hpcfut.get(ref) == 100


def case_dependents_of_a_failed_task_raise_its_error() -> None:
    failed = fail.remote("the first one")
    dependent = add.remote(failed, 1)
    third = add.remote(1, b=add.remote(dependent, failed))
    for ref in (failed, dependent, third):
        error = raised(LookupError, hpcfut.get, ref)
        assert isinstance(error, TaskError)
        assert error.args == ("the first one",)
        assert "Task fail raised on rank" in str(error)
    # Inside a value the ref is not resolved, so that its holder meets the error.
    raised(LookupError, hpcfut.get, first_of.remote([failed]))
    assert hpcfut.get(kinds.remote([failed])) == ["list"]


def case_an_error_is_that_of_all_results_of_a_dependent() -> None:
    refs = kinds.options(num_returns=2).remote(fail.remote("x"))
    for ref in refs:
        raised(LookupError, hpcfut.get, ref)


def case_a_ref_to_a_put_of_a_task() -> None:
    for value in (5, b"small", bytes(LARGE)):
        ref = hpcfut.get(put_here.remote(value))
        assert hpcfut.get(ref) == value
        assert hpcfut.get(same.remote(ref)) == value


def case_a_ref_to_a_task_of_a_task() -> None:
    for value in (5, bytes(LARGE)):
        ref = hpcfut.get(submit_here.remote(value))
        assert hpcfut.get(same.remote(ref)) == value
        assert hpcfut.get(ref) == value


def case_owners_are_where_refs_were_made(n_ranks: int) -> None:
    for rank in range(n_ranks):
        assert hpcfut.get(on_rank(put_here, rank).remote(1)).owner_rank == rank
        assert hpcfut.get(on_rank(submit_here, rank).remote(1)).owner_rank == rank
        assert on_rank(same, rank).remote(1).owner_rank == 0


def case_a_ref_of_a_ref_of_a_ref() -> None:
    deep = hpcfut.remote(lambda depth: hpcfut.put([hpcfut.put([hpcfut.put(depth)])]))
    ref = hpcfut.get(deep.remote(7))
    ref = hpcfut.get(ref)[0]
    ref = hpcfut.get(ref)[0]
    gc.collect()
    assert hpcfut.get(ref) == 7


def case_a_ref_that_only_a_put_value_holds() -> None:
    inner = hpcfut.put(bytes(LARGE))
    outer = hpcfut.put({"inner": [inner], "other": same.remote("other")})
    del inner
    gc.collect()
    value = hpcfut.get(outer)
    assert len(hpcfut.get(value["inner"][0])) == LARGE
    assert hpcfut.get(value["other"]) == "other"
    del value
    # The value, once resolved elsewhere, gives the refs again.
    read = hpcfut.remote(lambda value: len(hpcfut.get(value["inner"][0])))
    assert hpcfut.get([read.remote(outer) for _ in range(4)]) == [LARGE] * 4


def case_a_ref_passed_on_through_three_tasks(n_ranks: int) -> None:
    @hpcfut.remote
    def pass_on(refs: list[Ref], ranks: list[int]) -> Any:
        if not ranks:
            return hpcfut.get(refs[0])
        return hpcfut.get(on_rank(pass_on, ranks[0]).remote(refs, ranks[1:]))

    @hpcfut.remote
    def pass_on_and_leave(refs: list[Ref], ranks: list[int]) -> Any:
        return on_rank(pass_on_and_leave, ranks[0]).remote(refs, ranks[1:]) if ranks else refs[0]

    ranks = [1 % n_ranks, 2 % n_ranks, 3 % n_ranks]
    for value in ("small", bytes(LARGE)):
        assert hpcfut.get(pass_on.remote([hpcfut.put(value)], ranks)) == value
        ref = pass_on_and_leave.remote([hpcfut.put(value)], ranks)
        while isinstance(ref, hpcfut.ObjectRef):
            gc.collect()
            ref = hpcfut.get(ref)
        assert ref == value


def case_a_pending_ref_passed_on() -> None:
    @hpcfut.remote
    def chain(refs: list[Ref], depth: int) -> list[Ref]:
        if depth:
            return [chain.remote(refs, depth - 1)]
        return refs

    inner: Any = [chain.remote([add.remote(same.remote(1), 1)], 5)]
    while isinstance(inner, list):
        inner = hpcfut.get(inner[0])
    assert inner == 2


def case_a_ref_in_a_closure() -> None:
    def make(small: Ref, large: Ref) -> Any:
        return hpcfut.remote(lambda: (hpcfut.get(small), len(hpcfut.get(large))))

    read = make(hpcfut.put("captured"), hpcfut.put(bytes(LARGE)))
    gc.collect()
    assert hpcfut.get([read.remote() for _ in range(10)]) == [("captured", LARGE)] * 10


def case_a_ref_as_a_default_value() -> None:
    @hpcfut.remote
    def read(ref: Ref = hpcfut.put("default")) -> Any:  # noqa: B008  (the captured ref is what is tested)
        return hpcfut.get(ref)

    gc.collect()
    assert hpcfut.get(read.remote()) == "default"


def case_refs_in_an_object() -> None:
    class Holder:
        def __init__(self, ref: Ref) -> None:
            self.ref = ref

        def read(self) -> Any:
            return hpcfut.get(self.ref)

    call = hpcfut.remote(lambda holder: holder.read())
    holder = Holder(same.remote("held"))
    assert hpcfut.get(call.remote(holder)) == "held"
    assert hpcfut.get(call.remote(hpcfut.get(same.remote(holder)))) == "held"


def case_refs_among_results() -> None:
    @hpcfut.remote(num_returns=2)
    def two(ref: list[Ref]) -> Any:
        return ref[0], [hpcfut.put("made here"), ref[0]]

    given = hpcfut.put("given")
    first, second = two.remote([given])
    del given
    assert hpcfut.get(hpcfut.get(first)) == "given"
    assert hpcfut.get(hpcfut.get(second)) == ["made here", "given"]


def case_results_that_nobody_asks_for() -> None:
    for value in (1, bytes(LARGE)):
        for _ in range(20):
            same.remote(value)
            put_here.remote(value)
            submit_here.remote([same.remote(value)])
    assert hpcfut.get(same.remote("last")) == "last"


def case_many_borrowers_of_one_ref(n_ranks: int) -> None:
    ref = hpcfut.put({"value": bytes(LARGE)})
    length = hpcfut.remote(lambda refs: len(hpcfut.get(refs[0])["value"]))
    refs = [on_rank(length, rank).remote([ref]) for rank in range(n_ranks) for _ in range(5)]
    del ref
    assert hpcfut.get(refs) == [LARGE] * 5 * n_ranks


def case_a_value_larger_than_the_ref_list_that_holds_it() -> None:
    refs = [hpcfut.put(number) for number in range(1_000)]
    assert [hpcfut.get(ref) for ref in hpcfut.get(same.remote(refs))] == list(range(1_000))
    held = hpcfut.put(refs)
    del refs
    gc.collect()
    got = hpcfut.get(held)
    assert hpcfut.get(got) == list(range(1_000))


def case_put_of_a_ref_is_refused() -> None:
    error = raised(TypeError, hpcfut.put, hpcfut.put(1))
    assert "ref" in str(error)


def case_refs_are_values_of_their_own() -> None:
    ref, other = hpcfut.put(1), hpcfut.put(1)
    assert ref == copy.copy(ref) == copy.deepcopy([ref])[0]
    assert ref != other
    assert len({ref, other, copy.copy(ref)}) == 2
    assert len(ref.hex()) == 16
    assert ref != 1
    assert "ObjectRef(" in repr(ref)
    assert "cannot be pickled by hand" in str(raised(TypeError, pickle.dumps, ref))


def case_a_task_keeps_a_ref_in_a_global() -> None:
    @hpcfut.remote
    def keep(refs: list[Ref]) -> None:
        import builtins

        builtins.kept = refs  # type: ignore[attr-defined]

    @hpcfut.remote
    def read_and_drop() -> Any:
        import builtins

        refs = builtins.__dict__.pop("kept")
        return hpcfut.get(refs[0])

    ref = hpcfut.put(bytes(LARGE))
    last = hpcfut.nodes()[-1]["Rank"]
    hpcfut.get(on_rank(keep, last).remote([ref]))
    del ref
    gc.collect()
    assert len(hpcfut.get(on_rank(read_and_drop, last).remote())) == LARGE


def case_refs_cross_threads() -> None:
    got = []

    def work(ref: Ref) -> None:
        got.append(hpcfut.get(add.remote(ref, 1)))

    threads = [threading.Thread(target=work, args=(hpcfut.put(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 2, 3, 4, 5, 6]
