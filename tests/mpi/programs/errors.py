"""Errors of tasks, as who asks for their results meets them."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import hpcfut
from hpcfut.exceptions import StandInError, TaskError, UnpicklableError
from tests.mpi.support import on_rank, raised, same


class OwnError(Exception):
    """What users define."""


class ErrorWithAttributes(ValueError):
    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(f"{what} has code {code}")
        self.what = what
        self.code = code


class ErrorWithSlots(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ErrorWithText(Exception):
    def __str__(self) -> str:
        return "a text of its own"


class FinalError(Exception):
    """A type that refuses to be subclassed."""

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("FinalError is final")


class BadlyFinalError(Exception):
    """A type that refuses to be subclassed, in words of its own."""

    def __init_subclass__(cls) -> NoReturn:
        raise RuntimeError("BadlyFinalError is final")


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    reason: str


class HostileError(Exception):
    """Nothing can be asked of it, nor told to it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"no {name}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise RuntimeError(f"{name} cannot be set")

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this one stays here")


class StrictError(Exception):
    """Takes only attributes that it knows."""

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("__") and name != "args":
            raise AttributeError(name)
        super().__setattr__(name, value)


class Unpicklable:
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this one stays here")


class Unloadable:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("no number",)


@hpcfut.remote
def fail(make: Callable[..., BaseException], *args: Any, **kwargs: Any) -> None:
    raise make(*args, **kwargs)


def case_the_type_is_kept() -> None:
    for kind in (ValueError, KeyError, ZeroDivisionError, OwnError, ErrorWithText, KeyboardInterrupt, GeneratorExit):
        error = raised(kind, hpcfut.get, fail.remote(kind, "some text"))
        assert isinstance(error, TaskError)
        assert isinstance(error, hpcfut.exceptions.RayTaskError)
        assert isinstance(error, kind)
        assert error.args == ("some text",)
        assert type(error.cause) is kind
        assert error.cause.args == ("some text",)


def case_a_type_of_the_system_is_kept() -> None:
    error = raised(FileNotFoundError, hpcfut.get, hpcfut.remote(open).remote("/no/such/file"))
    assert isinstance(error, TaskError)
    assert error.filename == "/no/such/file"
    error_2 = raised(UnicodeDecodeError, hpcfut.get, hpcfut.remote(lambda: b"\xff".decode()).remote())
    assert (error_2.start, error_2.encoding) == (0, "utf-8")


def case_the_remote_traceback_is_told() -> None:
    def inner() -> None:
        secret_name_of_a_line = 1
        raise OwnError(f"told {secret_name_of_a_line}")

    def middle() -> None:
        inner()

    ref = hpcfut.remote(middle).remote()
    text = str(raised(OwnError, hpcfut.get, ref))
    assert "middle raised on rank" in text
    assert "in middle" in text
    assert "in inner" in text
    assert "told 1" in text
    assert "executor.py" not in text, text


def case_the_rank_is_named(n_ranks: int) -> None:
    for rank in range(n_ranks):
        error = raised(OwnError, hpcfut.get, on_rank(fail, rank).remote(OwnError, "x"))
        assert f"raised on rank {rank}:" in str(error)


def case_attributes_are_kept() -> None:
    error = raised(ErrorWithAttributes, hpcfut.get, fail.remote(ErrorWithAttributes, "disk", code=7))
    assert isinstance(error, TaskError)
    assert (error.what, error.code) == ("disk", 7)
    assert isinstance(error.cause, ErrorWithAttributes)
    assert error.cause.code == 7
    assert "disk has code 7" in str(error)


def case_notes_are_kept() -> None:
    def noted() -> None:
        error = OwnError("x")
        error.add_note("see the manual")
        raise error

    error = raised(OwnError, hpcfut.get, hpcfut.remote(noted).remote())
    assert "see the manual" in str(error)
    assert isinstance(error, TaskError)
    assert error.cause is not None
    assert error.cause.__notes__ == ["see the manual"]


def case_slots_are_kept() -> None:
    error = raised(ErrorWithSlots, hpcfut.get, fail.remote(ErrorWithSlots, 5))
    assert isinstance(error, TaskError)
    assert isinstance(error.cause, ErrorWithSlots)
    assert error.cause.code == 5
    assert error.code == 5


def case_the_chain_of_causes_is_told() -> None:
    def chain() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise OwnError("second") from error

    error = raised(OwnError, hpcfut.get, hpcfut.remote(chain).remote())
    assert isinstance(error, TaskError)
    assert error.cause is not None
    assert isinstance(error.cause.__cause__, KeyError)
    assert "first" in str(error)
    assert "direct cause" in str(error)


def case_a_class_of_a_function_is_kept() -> None:
    class LocalError(Exception):
        pass

    def fail_here() -> None:
        raise LocalError("local")

    error = raised(LocalError, hpcfut.get, hpcfut.remote(fail_here).remote())
    assert isinstance(error, TaskError)
    assert type(error.cause) is LocalError


def case_a_final_type_gives_a_plain_task_error() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(FinalError, "final"))
    assert not isinstance(error, FinalError)
    assert type(error.cause) is FinalError
    assert "FinalError: final" in str(error)


def case_a_type_that_refuses_in_words_of_its_own_gives_a_plain_task_error() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(BadlyFinalError, "final"))
    assert type(error.cause) is BadlyFinalError


def case_an_error_that_is_a_frozen_dataclass() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(FrozenError, 3, "frozen"))
    assert error.cause == FrozenError(3, "frozen")
    assert "FrozenError" in str(error)


def case_an_error_that_answers_nothing() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(HostileError, "hostile"))
    assert "HostileError" in str(error)
    assert hpcfut.get(same.remote(error.remote_traceback)) == str(error)


def case_an_error_that_takes_no_attributes() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(StrictError, "strict"))
    assert "StrictError: strict" in str(error)
    assert type(error.cause) is StrictError


def case_an_error_whose_text_no_encoding_takes() -> None:
    error = raised(ValueError, hpcfut.get, fail.remote(ValueError, "half a pair: \ud800"))
    assert isinstance(error, TaskError)
    assert "half a pair: " in str(error)


def case_each_get_raises_an_error_of_its_own() -> None:
    ref = fail.remote(OwnError, "x")
    one, two = raised(OwnError, hpcfut.get, ref), raised(OwnError, hpcfut.get, ref)
    assert one is not two
    assert str(one) == str(two)


def case_get_of_many_raises_the_first_error_of_the_list() -> None:
    refs = [same.remote(1), fail.remote(KeyError, "k"), fail.remote(OwnError, "o"), same.remote(2)]
    raised(KeyError, hpcfut.get, refs)
    raised(OwnError, hpcfut.get, refs[::-1])
    assert hpcfut.get([refs[0], refs[3]]) == [1, 2]


def case_an_error_through_nested_tasks() -> None:
    @hpcfut.remote
    def outer(depth: int) -> Any:
        return hpcfut.get(outer.remote(depth - 1) if depth else fail.remote(ErrorWithAttributes, "deep", code=depth))

    error = raised(ErrorWithAttributes, hpcfut.get, outer.remote(3))
    assert isinstance(error, TaskError)
    assert error.code == 0
    assert "deep has code 0" in str(error)
    assert "Task fail raised on rank" in str(error)


def case_an_error_caught_in_a_task() -> None:
    @hpcfut.remote
    def careful() -> str:
        try:
            hpcfut.get(fail.remote(OwnError, "caught"))
        except OwnError as error:
            return f"{type(error).__name__}: {error.args[0]}"
        return "nothing was raised"

    assert hpcfut.get(careful.remote()) == "OwnError: caught"


def case_an_error_raised_again_by_a_task() -> None:
    @hpcfut.remote
    def again() -> None:
        try:
            hpcfut.get(fail.remote(OwnError, "inner"))
        except OwnError as error:
            raise KeyError("outer") from error

    error = raised(KeyError, hpcfut.get, again.remote())
    assert error.args == ("outer",)
    assert "inner" in str(error)


def case_exit_in_a_task_is_its_error(n_ranks: int) -> None:
    for rank in range(n_ranks):
        error = raised(SystemExit, hpcfut.get, on_rank(hpcfut.remote(sys.exit), rank).remote(3))
        assert isinstance(error, TaskError)
        assert error.code == 3
        # The rank goes on.
        assert hpcfut.get(on_rank(same, rank).remote(rank)) == rank


def case_a_child_that_a_task_forks_ends_where_the_task_would() -> None:
    def fork(leave: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            return leave()  # type: ignore[return-value]
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def fail_quietly() -> NoReturn:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # of the child
        raise OwnError("in the child")

    fork_remotely = hpcfut.remote(fork)
    assert hpcfut.get(fork_remotely.remote(lambda: sys.exit(5))) == 5
    assert hpcfut.get(fork_remotely.remote(lambda: sys.exit())) == 0
    assert hpcfut.get(fork_remotely.remote(lambda: bytes(1_000_000))) == 0
    assert hpcfut.get(fork_remotely.remote(fail_quietly)) == 1
    assert hpcfut.get([same.remote(number) for number in range(20)]) == list(range(20))


def case_a_child_that_a_generator_forks_ends_where_it_yields() -> None:
    @hpcfut.remote
    def fork(rank: int) -> Iterator[int]:
        child = os.fork()
        if child:
            yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        yield rank

    assert hpcfut.get(list(fork.remote(7))) == [0, 7]


def case_a_deep_recursion_in_nested_tasks_is_an_error() -> None:
    @hpcfut.remote
    def nested(depth: int) -> int:
        def forever(n: int) -> int:
            return forever(n + 1)

        return hpcfut.get(nested.remote(depth - 1)) if depth else forever(0)

    error = raised(RecursionError, hpcfut.get, nested.remote(60))
    assert isinstance(error, TaskError)
    assert hpcfut.get(same.remote(1)) == 1


def case_an_argument_nested_too_deeply_to_be_pickled() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    raised(UnpicklableError, same.remote, deep)
    raised(UnpicklableError, hpcfut.put, [deep])

    def make() -> list[Any]:
        value: list[Any] = []
        for _ in range(100_000):
            value = [value]
        return value

    raised(UnpicklableError, hpcfut.get, hpcfut.remote(make).remote())
    assert hpcfut.get(same.remote(1)) == 1


def case_an_unpicklable_result() -> None:
    for make in (threading.Lock, Unpicklable, lambda: {"deep": [Unpicklable()]}, lambda: (n for n in range(3))):
        error = raised(TypeError, hpcfut.get, hpcfut.remote(lambda make=make: make()).remote())
        assert isinstance(error, TaskError)
        assert "cannot be sent to another rank" in str(error)
    one, two = hpcfut.remote(num_returns=2)(lambda: (bytes(150_000), threading.Lock())).remote()
    raised(UnpicklableError, hpcfut.get, one)
    raised(UnpicklableError, hpcfut.get, two)


def case_an_unpicklable_argument() -> None:
    lock = threading.Lock()
    for args in ((lock,), (1, [lock]), (Unpicklable(),), ({"a": (lock,)},)):
        error = raised(UnpicklableError, same.remote, *args)
        assert isinstance(error, TypeError)
        assert "rgument" in str(error)
    error = raised(UnpicklableError, same.remote, value=lock)
    assert "'value'" in str(error)
    raised(UnpicklableError, hpcfut.put, lock)
    # Neither leaves anything behind where a large value was stored before.
    raised(UnpicklableError, hpcfut.remote(lambda *values: None).remote, bytes(150_000), bytes(150_000), lock)


def case_an_unpicklable_function() -> None:
    lock = threading.Lock()
    function = hpcfut.remote(lambda: lock)
    raised(UnpicklableError, function.remote)


def case_an_argument_that_cannot_be_rebuilt() -> None:
    error = raised(hpcfut.exceptions.UnloadableError, hpcfut.get, same.remote(Unloadable()))
    assert isinstance(error, TaskError)
    assert "no number" in str(error)


def case_a_result_that_cannot_be_rebuilt() -> None:
    ref = hpcfut.remote(lambda: Unloadable()).remote()
    assert "no number" in str(raised(hpcfut.exceptions.UnloadableError, hpcfut.get, ref))


def case_an_unpicklable_error_is_told_all_the_same() -> None:
    def fail_with_a_lock() -> None:
        raise OwnError(threading.Lock())

    error = raised(TaskError, hpcfut.get, hpcfut.remote(fail_with_a_lock).remote())
    assert "OwnError" in str(error)
    assert isinstance(error.cause, (OwnError, StandInError))


def case_an_error_with_a_ref_in_it() -> None:
    def fail_with_a_ref() -> None:
        raise OwnError("a ref", hpcfut.put(1))

    error = raised(TaskError, hpcfut.get, hpcfut.remote(fail_with_a_ref).remote())
    assert "a ref" in str(error)


def case_errors_of_tasks_that_nobody_asks_for() -> None:
    for _ in range(20):
        fail.remote(OwnError, "unheard")
    assert hpcfut.get(same.remote(1)) == 1


def case_a_recursion_without_end_is_an_error() -> None:
    def forever(depth: int) -> int:
        return forever(depth + 1) + 1

    error = raised(RecursionError, hpcfut.get, hpcfut.remote(forever).remote(0))
    assert isinstance(error, TaskError)


def case_a_large_error() -> None:
    error = raised(OwnError, hpcfut.get, fail.remote(OwnError, "x" * 300_000))
    assert len(error.args[0]) == 300_000


def case_task_error_itself() -> None:
    error = raised(TaskError, hpcfut.get, fail.remote(TaskError, "raised by hand"))
    assert "raised by hand" in str(error)


def case_a_group_of_errors() -> None:
    def fail_in_many_ways() -> None:
        raise ExceptionGroup("many", [ValueError("one"), KeyError("two")])

    error = raised(TaskError, hpcfut.get, hpcfut.remote(fail_in_many_ways).remote())
    assert isinstance(error.cause, ExceptionGroup)
    assert [type(member) for member in error.cause.exceptions] == [ValueError, KeyError]
    assert isinstance(error, ExceptionGroup)
