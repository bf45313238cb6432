"""``runtime_env={"env_vars": …}``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hpcfut
from tests.mpi.support import WAIT_S, Gate, on_rank, raised

NAME = "HPCFUT_TEST_OF_A_TASK"
OTHER = "HPCFUT_TEST_OF_ANOTHER"


def setting(**variables: str) -> dict[str, Any]:
    return {"runtime_env": {"env_vars": variables}}


@hpcfut.remote
def seen(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names or (NAME, OTHER)]


def seen_everywhere(n_ranks: int) -> list[list[str | None]]:
    return hpcfut.get([on_rank(seen, rank).remote() for rank in range(n_ranks)])


def case_a_task_has_its_variables_and_others_do_not(n_ranks: int) -> None:
    for rank in range(n_ranks):
        with_both = on_rank(seen, rank, **setting(**{NAME: "1", OTHER: "two = 2"}))
        assert hpcfut.get(with_both.remote()) == ["1", "two = 2"]
        assert hpcfut.get(on_rank(seen, rank, **setting(**{OTHER: ""})).remote()) == [None, ""]
        assert hpcfut.get(on_rank(seen, rank, runtime_env={}).remote()) == [None, None]
    assert seen_everywhere(n_ranks) == [[None, None]] * n_ranks


def case_what_was_there_before_comes_back(n_ranks: int) -> None:
    home = hpcfut.get([on_rank(seen, rank).remote("HOME") for rank in range(n_ranks)])
    for rank in range(n_ranks):
        assert hpcfut.get(on_rank(seen, rank, **setting(HOME="/elsewhere")).remote("HOME")) == ["/elsewhere"]
    assert hpcfut.get([on_rank(seen, rank).remote("HOME") for rank in range(n_ranks)]) == home


def case_variables_go_with_a_task_that_raises(n_ranks: int) -> None:
    @hpcfut.remote
    def fail() -> None:
        raise ValueError(os.environ[NAME])

    for rank in range(n_ranks):
        error = raised(ValueError, hpcfut.get, on_rank(fail, rank, **setting(**{NAME: "raised"})).remote())
        assert error.args == ("raised",)
        assert "hpcfut/runtime" not in str(error), "Only the user's own frames are told."
    assert seen_everywhere(n_ranks) == [[None, None]] * n_ranks


def case_a_task_that_waits_takes_its_variables_off(n_ranks: int) -> None:
    @hpcfut.remote
    def outer(rank: int) -> list[Any]:
        before = os.environ.get(NAME)
        inner = hpcfut.get(on_rank(seen, rank).remote())
        other = hpcfut.get(on_rank(seen, rank, **setting(**{NAME: "inner"})).remote())
        return [before, inner, other, os.environ.get(NAME)]

    for rank in range(n_ranks):
        ref = on_rank(outer, rank, **setting(**{NAME: "outer"})).remote(rank)
        assert hpcfut.get(ref) == ["outer", [None, None], ["inner", None], "outer"]
    assert seen_everywhere(n_ranks) == [[None, None]] * n_ranks


def case_variables_of_a_generator(n_ranks: int) -> None:
    @hpcfut.remote(generator_backpressure_num_objects=1)
    def generate() -> Iterator[str | None]:
        for _ in range(3):
            yield os.environ.get(NAME)

    for rank in range(n_ranks):
        items = on_rank(generate, rank, **setting(**{NAME: "generated"})).remote()
        for ref in items:
            assert hpcfut.get(ref) == "generated"
            assert seen_everywhere(n_ranks) == [[None, None]] * n_ranks


def case_variables_go_with_a_cancelled_task(n_ranks: int) -> None:
    @hpcfut.remote
    def spin(gate: Gate) -> None:
        gate.arrive()
        while True:
            pass

    for rank in range(n_ranks):
        with Gate() as gate:
            ref = on_rank(spin, rank, **setting(**{NAME: "spinning"})).remote(gate)
            gate.until_arrived(1, [ref])
            hpcfut.cancel(ref)
            raised(hpcfut.exceptions.TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)
    assert seen_everywhere(n_ranks) == [[None, None]] * n_ranks
