"""Calls of remote functions: arguments, numbers of results, options."""

from __future__ import annotations

import math
import time
from typing import Any

import hpcfut
from hpcfut.exceptions import NotARefError, TaskError
from tests.mpi.support import WAIT_S, on_rank, raised


@hpcfut.remote
def describe(first: Any, /, second: Any, third: Any = 3, *rest: Any, only: Any = "only", **others: Any) -> Any:
    return first, second, third, rest, only, others


@hpcfut.remote
def nothing() -> None:
    pass


@hpcfut.remote(num_returns=3)
def three(a: Any, b: Any, c: Any) -> Any:
    return a, b, c


@hpcfut.remote
def values(n: int) -> list[int]:
    return list(range(n))


@hpcfut.remote
def rank_here() -> int:
    return hpcfut.get_runtime_context().get_rank()


def case_positional_keyword_and_default_arguments() -> None:
    calls = [
        (describe.remote(1, 2), (1, 2, 3, (), "only", {})),
        (describe.remote(1, second=2), (1, 2, 3, (), "only", {})),
        (describe.remote(1, third=5, second=2), (1, 2, 5, (), "only", {})),
        (describe.remote(1, 2, 3, 4, 5, only=6), (1, 2, 3, (4, 5), 6, {})),
        (describe.remote(1, 2, more=7, first=8), (1, 2, 3, (), "only", {"more": 7, "first": 8})),
        (describe.remote(1, 2, self=9), (1, 2, 3, (), "only", {"self": 9})),
        (describe.remote(None, [], third={}), (None, [], {}, (), "only", {})),
    ]
    assert hpcfut.get([ref for ref, _ in calls]) == [expected for _, expected in calls]


def case_a_wrong_call_is_the_error_of_the_task() -> None:
    for ref in (describe.remote(1), nothing.remote(1), nothing.remote(a=1)):
        error = raised(TypeError, hpcfut.get, ref)
        assert isinstance(error, TaskError)
        assert "argument" in str(error)


def case_no_arguments_and_no_result() -> None:
    assert hpcfut.get(nothing.remote()) is None
    assert hpcfut.get([nothing.remote() for _ in range(50)]) == [None] * 50


def case_many_arguments() -> None:
    count = hpcfut.remote(lambda *args, **kwargs: (len(args), len(kwargs), sum(args), sum(kwargs.values())))
    kwargs = {f"name_{number}": number for number in range(300)}
    total = sum(range(300))
    assert hpcfut.get(count.remote(*range(300), **kwargs)) == (300, 300, total, total)


def case_num_returns_of_three() -> None:
    refs = three.remote(1, "two", [3])
    assert type(refs) is list
    assert hpcfut.get(refs) == [1, "two", [3]]
    assert hpcfut.get(refs[1]) == "two"
    # Each result lives by itself.
    last = refs.pop()
    del refs
    assert hpcfut.get(last) == [3]


def case_num_returns_of_one_and_zero() -> None:
    assert hpcfut.get(values.options(num_returns=1).remote(2)) == [0, 1]
    assert values.options(num_returns=0).remote(2) is None
    assert nothing.options(num_returns=0).remote() is None


def case_num_returns_takes_any_iterable() -> None:
    generate = hpcfut.remote(num_returns=2)(lambda: iter("ab"))
    assert hpcfut.get(generate.remote()) == ["a", "b"]
    assert hpcfut.get(hpcfut.remote(num_returns=2)(lambda: {"k": 1, "l": 2}).remote()) == ["k", "l"]


def case_num_returns_that_does_not_fit() -> None:
    for function, told in [
        (values.options(num_returns=3), "num_returns=3, but it returned 2 values"),
        (hpcfut.remote(num_returns=2)(lambda _: 5), "num_returns=2, but it returned int"),
    ]:
        refs = function.remote(2)
        for ref in refs:
            error = raised(ValueError, hpcfut.get, ref)
            assert isinstance(error, TaskError)
            assert told in str(error)


def case_an_error_is_that_of_each_of_three_results() -> None:
    refs = hpcfut.remote(num_returns=3)(lambda: 1 / 0).remote()
    assert len(refs) == 3
    for ref in refs:
        raised(ZeroDivisionError, hpcfut.get, ref)


def case_options_make_another_function() -> None:
    two = values.options(num_returns=2, name="a pair")
    assert hpcfut.get(two.remote(2)) == [0, 1]
    assert hpcfut.get(values.remote(2)) == [0, 1]
    # Options add up; None is the default.
    assert len(two.options(num_cpus=0.5).remote(2)) == 2
    assert hpcfut.get(two.options(num_returns=None).remote(2)) == [0, 1]
    assert hpcfut.get(values.options().remote(1)) == [0]


def case_a_name_stands_in_the_traceback() -> None:
    refs = values.options(num_returns=2, name="a pair").remote(5)
    assert "Task a pair raised on rank" in str(raised(ValueError, hpcfut.get, refs[0]))


def case_wrong_options_are_told_where_they_are_given() -> None:
    wrong: list[dict[str, Any]] = [
        {"num_returns": -1},
        {"num_returns": 1.5},
        {"num_returns": True},
        {"num_returns": "two"},
        {"num_returns": "dynamic"},
        {"max_retries": -2},
        {"max_retries": 1.0},
        {"max_retries": True},
        {"retry_exceptions": "ValueError"},
        {"retry_exceptions": [ValueError, "KeyError"]},
        {"retry_exceptions": [int]},
        {"retry_exceptions": 1},
        {"generator_backpressure_num_objects": 0},
        {"generator_backpressure_num_objects": -1},
        {"generator_backpressure_num_objects": 10**6},
        {"generator_backpressure_num_objects": "few"},
        {"runtime_env": ["env_vars"]},
        {"runtime_env": {"pip": ["numpy"]}},
        {"runtime_env": {"env_vars": {"NAME": 1}}},
        {"runtime_env": {"env_vars": {"NA=ME": "1"}}},
        {"runtime_env": {"env_vars": {"NAME": "1\0"}}},
        {"runtime_env": {"env_vars": {"": "1"}}},
        {"runtime_env": {"env_vars": "NAME=1"}},
        {"num_cpus": -1},
        {"num_cpus": "1"},
        {"num_cpus": math.inf},
        {"num_cpus": math.nan},
        {"num_gpus": -1},
        {"num_gpus": "1"},
        {"memory": -5},
        {"resources": ["disk"]},
        {"resources": {"disk": -1}},
        {"resources": {"disk": "1"}},
        {"resources": {"disk": math.nan}},
        {"resources": {"disk": math.inf}},
        {"resources": {"CPU": 1}},
        {"resources": {"GPU": 1}},
        {"resources": {1: 1}},
        {"resources": {"half a pair: \ud800": 1}},
        {"name": 5},
        {"name": "half a pair: \ud800"},
        {"scheduling_strategy": "FASTEST"},
        {"no_such_option": 1},
        {"num_cpu": 1},
    ]
    for options in wrong:
        (name,) = options
        assert name in str(raised(ValueError, values.options, **options))
        assert name in str(raised(ValueError, hpcfut.remote, **options))


def case_what_is_wrong_with_an_option_is_told() -> None:
    assert '"streaming"' in str(raised(ValueError, values.options, num_returns="dynamic"))
    assert "'pip' cannot" in str(raised(ValueError, values.options, runtime_env={"env_vars": {}, "pip": []}))
    assert "isolation" not in str(raised(ValueError, values.options, runtime_env={"working_dir": "."}))


def case_affinity_takes_ranks_of_the_job_only(n_ranks: int) -> None:
    for rank in range(n_ranks):
        assert hpcfut.get(on_rank(rank_here, rank).remote()) == rank
        by_name = hpcfut.NodeAffinitySchedulingStrategy(hpcfut.nodes()[rank]["NodeID"])
        assert hpcfut.get(rank_here.options(scheduling_strategy=by_name).remote()) == rank
    hard = rank_here.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(n_ranks))
    error = raised(hpcfut.exceptions.TaskUnschedulableError, hpcfut.get, hard.remote())
    assert f"rank {n_ranks}" in str(error).lower()
    soft = rank_here.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(n_ranks, soft=True))
    assert hpcfut.get(soft.remote()) in range(n_ranks)


def case_spread_runs_everything() -> None:
    spread = values.options(scheduling_strategy="SPREAD")
    assert hpcfut.get([spread.remote(n) for n in range(30)]) == [list(range(n)) for n in range(30)]


def case_calls_one_at_a_time_spread_over_the_ranks(n_ranks: int) -> None:
    spread = rank_here.options(scheduling_strategy="SPREAD")
    deadline = time.monotonic() + WAIT_S
    # While such a call finds another rank free, the driver's own gets none of them.
    others = set(range(min(1, n_ranks - 1), n_ranks))
    ran: set[int] = set()
    while not ran >= others:
        assert time.monotonic() < deadline, f"Only the ranks {sorted(ran)} were given a task."
        ran.add(hpcfut.get(spread.remote()))


def case_a_remote_function_is_not_called_directly() -> None:
    error = raised(TypeError, values, 3)
    assert "values.remote(" in str(error)


def case_what_cannot_be_remote() -> None:
    raised(TypeError, hpcfut.remote, 5)
    raised(TypeError, hpcfut.remote, values)
    raised(TypeError, hpcfut.remote(num_returns=2), "text")


def case_a_remote_function_keeps_its_looks() -> None:
    assert describe.__name__ == "describe"
    assert describe.__module__ == __name__


def case_get_of_what_is_no_ref() -> None:
    ref = values.remote(1)
    for wrong in (5, None, "text", b"bytes", {"a": ref}, [ref, 5], [None], [[ref]], object()):
        error = raised(NotARefError, hpcfut.get, wrong)
        assert isinstance(error, TypeError)
        assert isinstance(error, ValueError)
        assert "get() was given a" in str(error)
    assert hpcfut.get([]) == []
    assert hpcfut.get((ref, ref)) == [[0], [0]]
    assert hpcfut.get(iter([ref])) == [[0]]  # type: ignore[call-overload]


def case_thousands_of_refs_at_once() -> None:
    double = hpcfut.remote(lambda number: 2 * number)
    refs = [double.remote(number) for number in range(5_000)]
    assert hpcfut.get(refs) == list(range(0, 10_000, 2))
    # A second time, backwards, and each of them twice.
    assert hpcfut.get([*reversed(refs), *refs]) == [*range(9_998, -1, -2), *range(0, 10_000, 2)]


def case_a_list_of_a_thousand_refs_as_one_argument() -> None:
    double = hpcfut.remote(lambda number: 2 * number)
    total = hpcfut.remote(lambda refs: sum(hpcfut.get(refs)))
    refs = [double.remote(number) for number in range(1_000)]
    assert hpcfut.get(total.remote(refs)) == 999_000


def case_a_thousand_refs_as_arguments() -> None:
    double = hpcfut.remote(lambda number: 2 * number)
    total = hpcfut.remote(lambda *numbers: sum(numbers))
    refs = [double.remote(number) for number in range(1_000)]
    assert hpcfut.get(total.remote(*refs)) == 999_000
