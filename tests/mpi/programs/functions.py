"""Which functions can be remote, and what travels with them."""

from __future__ import annotations

import functools
import math
import operator
import os
import statistics
import sys
import types
from typing import Any

import hpcfut
from tests.mpi.support import on_rank, raised

FACTOR = 3


def plain(number: int) -> int:
    return FACTOR * number


@hpcfut.remote
def call_plain(number: int) -> int:
    return plain(number)


@hpcfut.remote
def factorial(n: int) -> int:
    return n * int(hpcfut.get(factorial.remote(n - 1))) if n else 1


@hpcfut.remote
def is_even(n: int) -> bool:
    return bool(hpcfut.get(is_odd.remote(n - 1))) if n else True


@hpcfut.remote
def is_odd(n: int) -> bool:
    return bool(hpcfut.get(is_even.remote(n - 1))) if n else False


class Shape:
    sides = 4

    def __init__(self, size: int) -> None:
        self.size = size

    def area(self, factor: int = 1) -> int:
        return factor * self.size**2

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    @classmethod
    def count(cls) -> int:
        return cls.sides

    def __call__(self, number: int) -> int:
        return self.size + number


@hpcfut.remote
def call(function: Any, *args: Any) -> Any:
    return function(*args)


def case_functions_of_modules() -> None:
    assert hpcfut.get(call_plain.remote(5)) == 15
    assert hpcfut.get(hpcfut.remote(plain).remote(5)) == 15
    assert hpcfut.get(hpcfut.remote(math.factorial).remote(5)) == 120
    assert hpcfut.get(hpcfut.remote(statistics.mean).remote([1, 2, 3])) == 2
    assert hpcfut.get(hpcfut.remote(operator.add).remote(1, 2)) == 3
    assert hpcfut.get(hpcfut.remote(len).remote("four")) == 4


def case_lambdas() -> None:
    assert hpcfut.get(
        [hpcfut.remote(lambda number, factor=factor: factor * number).remote(2) for factor in range(5)]
    ) == [
        0,
        2,
        4,
        6,
        8,
    ]


def case_closures() -> None:
    def make(base: int) -> Any:
        def inner(number: int) -> int:
            def innermost() -> int:
                return base * number + FACTOR

            return innermost()

        return hpcfut.remote(inner)

    functions = [make(base) for base in range(5)]
    assert hpcfut.get([function.remote(10) for function in functions]) == [3, 13, 23, 33, 43]


def case_a_closure_is_a_snapshot_of_the_first_call() -> None:
    captured = [1]
    read = hpcfut.remote(lambda: captured)
    assert hpcfut.get(read.remote()) == [1]
    captured.append(2)
    assert hpcfut.get(read.remote()) == [1]


def case_functions_inside_functions_call_each_other() -> None:
    @hpcfut.remote
    def leaf(number: int) -> int:
        return number + 1

    @hpcfut.remote
    def branch(number: int) -> int:
        return sum(hpcfut.get([leaf.remote(number), leaf.remote(number + 1)]))

    assert hpcfut.get(branch.remote(1)) == 5


def case_recursion_through_the_remote_handle() -> None:
    assert hpcfut.get(factorial.remote(12)) == math.factorial(12)
    assert hpcfut.get([is_even.remote(9), is_odd.remote(9)]) == [False, True]

    @hpcfut.remote
    def local_factorial(n: int) -> int:
        return n * int(hpcfut.get(local_factorial.remote(n - 1))) if n else 1

    assert hpcfut.get(local_factorial.remote(10)) == math.factorial(10)


def case_a_remote_function_as_an_argument_and_a_result() -> None:
    @hpcfut.remote
    def apply(function: Any, number: int) -> int:
        return int(hpcfut.get(function.remote(number)))

    assert hpcfut.get(apply.remote(call_plain, 7)) == 21
    assert hpcfut.get(apply.remote(hpcfut.remote(lambda number: number + 1), 7)) == 8
    returned = hpcfut.get(call.remote(lambda: hpcfut.remote(lambda number: number * number)))
    assert hpcfut.get(returned.remote(7)) == 49
    with_options = hpcfut.get(call.remote(lambda: hpcfut.remote(divmod).options(num_returns=2)))
    assert hpcfut.get(with_options.remote(7, 3)) == [2, 1]


def case_functions_as_arguments() -> None:
    assert hpcfut.get(call.remote(plain, 5)) == 15
    assert hpcfut.get(call.remote(lambda number: number + FACTOR, 5)) == 8
    assert hpcfut.get(call.remote(math.sqrt, 9)) == 3
    assert hpcfut.get(call.remote(functools.partial(plain, 4))) == 12


def case_callables_that_are_no_functions() -> None:
    shape = Shape(3)
    assert hpcfut.get(hpcfut.remote(shape.area).remote(factor=2)) == 18
    assert hpcfut.get(hpcfut.remote(Shape.double).remote(4)) == 8
    assert hpcfut.get(hpcfut.remote(Shape.count).remote()) == 4
    assert hpcfut.get(hpcfut.remote(shape).remote(4)) == 7
    assert hpcfut.get(hpcfut.remote(functools.partial(plain, 4)).remote()) == 12


def case_a_class_keeps_its_identity() -> None:
    back = hpcfut.get(call.remote(lambda shape: shape, Shape(2)))
    assert type(back) is Shape
    assert back.area() == 4

    class Local:
        made = 0

        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Local) and self.value == other.value

        __hash__ = None  # type: ignore[assignment]

    for _ in range(3):
        one, two = hpcfut.get([call.remote(lambda value: value, Local(1)), call.remote(lambda: Local(1))])
        assert type(one) is type(two) is Local
        assert one == two == Local(1)
    assert hpcfut.get(call.remote(lambda kind: kind, Local)) is Local
    is_same = hpcfut.remote(lambda value, kind: type(value) is kind)
    assert hpcfut.get([is_same.remote(Local(1), Local) for _ in range(10)]) == [True] * 10


def case_a_class_made_in_a_task() -> None:
    def make() -> Any:
        class Made:
            value = 5

        return Made()

    assert hpcfut.get(call.remote(make)).value == 5


def case_a_module_that_no_file_has() -> None:
    module = types.ModuleType("made_by_hand")
    exec("def triple(number): return 3 * number", module.__dict__)
    sys.modules["made_by_hand"] = module
    try:
        assert hpcfut.get(call.remote(module.triple, 5)) == 15
    finally:
        del sys.modules["made_by_hand"]


def case_every_rank_has_the_path_and_the_arguments_of_the_script(n_ranks: int) -> None:
    look = hpcfut.remote(lambda: (sys.path[0], sys.argv))
    for rank in range(n_ranks):
        assert hpcfut.get(on_rank(look, rank).remote()) == (sys.path[0], sys.argv)


def case_a_function_runs_where_it_is_sent(n_ranks: int) -> None:
    pids = [hpcfut.get(on_rank(hpcfut.remote(os.getpid), rank).remote()) for rank in range(n_ranks)]
    assert pids == [node["Pid"] for node in hpcfut.nodes()]


def case_many_functions(n_ranks: int) -> None:
    functions = [hpcfut.remote(lambda number=number: number) for number in range(150)]
    assert hpcfut.get([function.remote() for function in functions]) == list(range(150))


def case_async_functions_are_refused() -> None:
    async def coroutine() -> None: ...

    async def generate() -> Any:
        yield 1

    for function in (coroutine, generate):
        assert "asyncio.run" in str(raised(TypeError, hpcfut.remote, function))
        assert "asyncio.run" in str(raised(TypeError, hpcfut.remote(num_cpus=1), function))


def case_dropped_functions_are_forgotten(n_ranks: int) -> None:
    from tests.mpi.support import n_templates

    before = n_templates()
    big = bytes(50_000)
    for number in range(10):
        function = hpcfut.remote(lambda number=number: len(big) + number)
        refs = [on_rank(function, rank).remote() for rank in range(n_ranks)]
        assert hpcfut.get(refs) == [50_000 + number] * n_ranks
    del function, refs
    assert n_templates(at_most=before) <= before
