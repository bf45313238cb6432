"""Actors: state that lives on a rank, handles of it, order, names, ends."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import hpcfut
from hpcfut.exceptions import (
    ActorDiedError,
    ActorError,
    PendingCallsLimitExceededError,
    TaskCancelledError,
    TaskError,
)
from tests.mpi.support import Gate, get, on_rank, raised, same, until


class Counter:
    """Counts, and knows where it is."""

    def __init__(self, n: int = 0) -> None:
        self.n = n
        self.history: list[Any] = []

    def add(self, k: int = 1) -> int:
        self.n += k
        return self.n

    def note(self, value: Any) -> None:
        self.history.append(value)

    def noted(self) -> list[Any]:
        return self.history

    def rank(self) -> int:
        return hpcfut.get_runtime_context().get_rank()

    def wait_at(self, gate: Gate, value: Any = None) -> Any:
        gate.wait()
        return value

    def fail(self) -> None:
        raise KeyError("no such thing")

    def __call__(self, value: int) -> int:
        return value + self.n

    @staticmethod
    def twice(value: int) -> int:
        return 2 * value

    @classmethod
    def name(cls) -> str:
        return cls.__name__


Counters: Any = hpcfut.remote(Counter)


def case_an_actor_keeps_its_state(n_ranks: int) -> None:
    for rank in range(n_ranks):
        counter = on_rank(Counters, rank).remote(10)
        assert get([counter.add.remote(), counter.add.remote(5), counter.add.remote(k=4)]) == [11, 16, 20]
        assert get(counter.rank.remote()) == rank
        assert get(counter.__call__.remote(1)) == 21
        assert get([counter.twice.remote(4), counter.name.remote()]) == [8, "Counter"]


def case_methods_are_inherited() -> None:
    class Base:
        def one(self) -> int:
            return 1

        def which(self) -> str:
            return "base"

    class Derived(Base):
        def which(self) -> str:
            return "derived, not " + super().which()

    actor = hpcfut.remote(Derived).remote()
    assert get([actor.one.remote(), actor.which.remote()]) == [1, "derived, not base"]


def case_calls_of_one_caller_run_in_order(n_ranks: int) -> None:
    for rank in range(n_ranks):
        counter = on_rank(Counters, rank).remote()
        for n in range(300):
            counter.note.remote(n)
        assert get(counter.noted.remote()) == list(range(300))


def case_a_call_whose_argument_is_not_ready_holds_up_the_later_ones() -> None:
    counter = Counters.remote()
    with Gate() as gate:
        late = Counters.remote().wait_at.remote(gate, "late")
        refs = [counter.note.remote(late), counter.note.remote("next")]
        assert hpcfut.wait(refs, num_returns=2, timeout=0.05)[0] == []
    assert get(counter.noted.remote()) == ["late", "next"]


def case_calls_may_overtake_where_that_is_allowed() -> None:
    counter = Counters.options(allow_out_of_order_execution=True).remote()
    with Gate() as gate:
        late = counter.note.remote(Counters.remote().wait_at.remote(gate, "late"))
        get(counter.note.remote("next"))
    get(late)
    assert get(counter.noted.remote()) == ["next", "late"]


def case_a_method_that_raises_leaves_the_actor_alone() -> None:
    counter = Counters.remote()
    error = raised(KeyError, get, counter.fail.remote())
    assert isinstance(error, TaskError)
    assert "Counter.fail raised on rank" in str(error)
    assert get(counter.add.remote()) == 1


def case_results_and_arguments_of_any_size(n_ranks: int) -> None:
    class Store:
        def __init__(self, first: Any) -> None:
            self.arrays = [first]

        def put(self, array: Any) -> int:
            self.arrays.append(array)
            return len(self.arrays)

        def take(self, index: int) -> Any:
            return self.arrays[index]

        @hpcfut.method(num_returns=2)
        def ends(self) -> Any:
            return self.arrays[0], self.arrays[-1]

        @hpcfut.method(num_returns=0)
        def nothing(self) -> None:
            self.arrays.clear()

    large = np.arange(300_000)
    for rank in range(n_ranks):
        store = on_rank(hpcfut.remote(Store), rank).remote(large)
        assert get([store.put.remote(large + 1), store.put.remote(hpcfut.put(large + 2))]) == [2, 3]
        for n in range(3):
            assert np.array_equal(get(store.take.remote(n)), large + n)
        first, last = get(store.ends.remote())
        assert (first[0], last[0]) == (0, 2)
        assert store.nothing.remote() is None
        assert "index" in str(raised(IndexError, get, store.take.remote(0)))


def case_an_actor_has_a_thread_of_its_own(n_ranks: int) -> None:
    class Table:
        def __init__(self) -> None:
            self.connection = sqlite3.connect(":memory:")
            self.connection.execute("create table numbers (n integer)")
            self.thread = threading.get_ident()

        def add(self, n: int) -> int:
            self.connection.execute("insert into numbers values (?)", (n,))
            (total,) = self.connection.execute("select sum(n) from numbers").fetchone()
            assert self.thread == threading.get_ident()
            return int(total)

    tables = [on_rank(hpcfut.remote(Table), rank).remote() for rank in range(n_ranks)] * 2
    for n in range(1, 4):
        get([same.remote(n) for _ in range(n_ranks)])  # Tasks take their threads in between.
        assert get([table.add.remote(n) for table in tables]) == [n * n - n + n] * n_ranks + [n * n + n] * n_ranks


def case_handles_are_passed_to_tasks_and_actors(n_ranks: int) -> None:
    class Caller:
        def __init__(self, counter: Any) -> None:
            self.counter = counter

        def add(self, k: int) -> int:
            return int(hpcfut.get(self.counter.add.remote(k)))

    @hpcfut.remote
    def add(counters: list[Any]) -> int:
        return int(hpcfut.get(counters[0].add.remote(1)))

    counter = Counters.remote()
    callers = [on_rank(hpcfut.remote(Caller), rank).remote(counter) for rank in range(n_ranks)]
    assert sorted(get([caller.add.remote(1) for caller in callers])) == [*range(1, n_ranks + 1)]
    assert sorted(get([add.remote([counter]) for _ in range(5)])) == [*range(n_ranks + 1, n_ranks + 6)]


def case_handles_can_be_compared() -> None:
    first, second = Counters.remote(), Counters.remote()
    again = get(same.remote([first]))[0]
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    assert len({first, second, again}) == 2
    assert repr(first) == f"Actor(Counter, {first._actor_id.hex()})"
    assert get(again.add.remote()) == get(first.add.remote()) - 1


def case_an_actor_ends_with_its_last_handle(n_ranks: int) -> None:
    class Mortal:
        def __init__(self, path: Path) -> None:
            self.path = path
            self.thread = threading.get_ident()

        def ready(self) -> None: ...

        def __del__(self) -> None:
            self.path.write_text(str(self.thread == threading.get_ident()))

    gate = Gate()
    with gate:
        for rank in range(n_ranks):
            path = gate.folder / str(rank)
            actor = on_rank(hpcfut.remote(Mortal), rank).remote(path)
            held = get(same.remote([actor]))
            get(actor.ready.remote())
            del actor
            gc.collect()
            get(held[0].ready.remote())
            del held
            gc.collect()
            until_made(path)
            assert path.read_text() == "True"


def until_made(path: Path) -> None:
    """Wait while ranks that need a waiting driver for it get on."""

    def is_made() -> bool:
        hpcfut.wait([same.remote(0)], timeout=0.01)
        return path.exists() and bool(path.read_text())

    until(is_made)


def case_calls_that_were_made_outlive_the_handle() -> None:
    refs = [Counters.remote(n).add.remote() for n in range(5)]
    gc.collect()
    assert get(refs) == [1, 2, 3, 4, 5]


def case_names() -> None:
    until(lambda: hpcfut.list_named_actors() == [])
    counter = Counters.options(name="one").remote(1)
    assert hpcfut.get_actor("one") == counter
    assert get(hpcfut.get_actor("one").add.remote()) == 2
    assert "is taken by Actor(Counter" in str(raised(ValueError, Counters.options(name="one").remote))
    assert Counters.options(name="one", get_if_exists=True).remote() == counter
    other = Counters.options(name="one", namespace="elsewhere").remote(5)
    assert other != counter
    assert hpcfut.get_actor("one", namespace="elsewhere") == other
    assert hpcfut.list_named_actors() == ["one"]
    assert {"name": "one", "namespace": "elsewhere"} in hpcfut.list_named_actors(all_namespaces=True)
    assert "There is no actor with the name 'two'" in str(raised(ValueError, hpcfut.get_actor, "two"))

    @hpcfut.remote
    def add_by_name() -> int:
        return int(hpcfut.get(hpcfut.get_actor("one").add.remote()))

    assert sorted(get([add_by_name.remote() for _ in range(3)])) == [3, 4, 5]
    del counter, other
    gc.collect()
    until(lambda: hpcfut.list_named_actors() == [])  # Handles that tasks have had are released later.
    again = Counters.options(name="one", get_if_exists=True).remote(7)
    assert get(again.add.remote()) == 8


def case_a_detached_actor_lives_without_a_handle() -> None:
    get(Counters.options(name="detached", lifetime="detached").remote(1).add.remote())
    gc.collect()
    counter = hpcfut.get_actor("detached")
    assert get(counter.add.remote()) == 3
    hpcfut.kill(counter)
    raised(ActorDiedError, get, counter.add.remote())


def case_kill(n_ranks: int) -> None:
    for rank in range(n_ranks):
        counter = on_rank(Counters, rank).remote()
        assert get(counter.add.remote()) == 1
        with Gate() as gate:
            running, waiting = counter.wait_at.remote(gate), counter.add.remote()
            gate.until_arrived(1, [running])
            hpcfut.kill(counter)
            for ref in (running, waiting, counter.add.remote()):
                error = raised(ActorDiedError, get, ref)
                assert isinstance(error, ActorError)
                assert "was killed" in str(error)


def case_exit_actor() -> None:
    class Guest:
        def leave(self) -> None:
            try:
                hpcfut.exit_actor()
            except Exception as error:
                raise AssertionError from error

        def stay(self) -> int:
            return 1

    guest = hpcfut.remote(Guest).remote()
    assert get(guest.stay.remote()) == 1
    for ref in (guest.leave.remote(), guest.stay.remote()):
        assert "exit_actor()" in str(raised(ActorDiedError, get, ref))
    guest = hpcfut.remote(Guest).remote()
    raised(ActorDiedError, get, guest.__ray_terminate__.remote())
    assert "outside of an actor" in str(raised(RuntimeError, hpcfut.exit_actor))
    assert isinstance(raised(RuntimeError, get, hpcfut.remote(hpcfut.exit_actor).remote()), TaskError)


def case_a_constructor_that_raises() -> None:
    class Broken:
        def __init__(self) -> None:
            raise OSError("no such device")

        def call(self) -> None: ...

    broken = hpcfut.remote(Broken).remote()
    for _ in range(2):
        error = raised(ActorDiedError, get, broken.call.remote())
        assert "OSError: no such device" in str(error)


def case_an_actor_that_no_rank_can_hold() -> None:
    error = raised(ActorDiedError, get, Counters.options(num_cpus=10**6).remote().add.remote())
    assert "CPU" in str(error)


def case_what_is_given_is_held_for_life() -> None:
    total = hpcfut.available_resources()
    free = Counters.remote()
    get(free.add.remote())
    assert hpcfut.available_resources() == total
    holder = Counters.options(num_cpus=1, memory=1000).remote()
    get(holder.add.remote())
    assert hpcfut.available_resources() == {**total, "CPU": total["CPU"] - 1, "memory": total["memory"] - 1000}
    del holder
    gc.collect()
    until(lambda: hpcfut.available_resources() == total)


def case_cancelling_calls(n_ranks: int) -> None:
    class Loop:
        def __init__(self) -> None:
            self.n = 0

        def turn(self, gate: Gate) -> None:
            gate.arrive()
            while True:
                self.n += 1

        def count(self) -> int:
            return self.n

    for rank in range(n_ranks):
        loop = on_rank(hpcfut.remote(Loop), rank).remote()
        with Gate() as gate:
            running, queued = loop.turn.remote(gate), loop.turn.remote(gate)
            gate.until_arrived(1, [running])
            hpcfut.cancel(queued)
            raised(TaskCancelledError, get, queued)
            hpcfut.cancel(running)
            raised(TaskCancelledError, get, running)
        assert get(loop.count.remote()) > 0


def case_generators(n_ranks: int) -> None:
    class Source:
        def count(self, n: int) -> Iterator[int]:
            yield from range(n)

        @hpcfut.method(num_returns="streaming")
        def listed(self, n: int) -> Any:
            return [*range(n)]

    for rank in range(n_ranks):
        source = on_rank(hpcfut.remote(Source), rank).remote()
        for n in (0, 1, 150):
            assert get(list(source.count.remote(n))) == [*range(n)]
        assert get(list(source.listed.remote(3))) == [0, 1, 2]
        assert get(source.count.options(num_returns=2).remote(2)) == [0, 1]


def case_too_many_pending_calls() -> None:
    counter = Counters.options(max_pending_calls=2).remote()
    with Gate() as gate:
        refs = [counter.wait_at.remote(gate, n) for n in range(2)]
        assert "max_pending_calls" in str(raised(PendingCallsLimitExceededError, counter.add.remote))
    assert get(refs) == [0, 1]
    assert get(counter.add.remote()) == 1


def case_the_context_of_an_actor() -> None:
    class Self:
        def told(self) -> Any:
            context = hpcfut.get_runtime_context()
            return context.get_actor_id(), context.get_actor_name(), context.current_actor

        def of_a_task(self) -> Any:
            return hpcfut.get(hpcfut.remote(lambda: hpcfut.get_runtime_context().get_actor_id()).remote())

    actor = hpcfut.remote(Self).options(name="self").remote()
    assert get(actor.told.remote()) == (actor._actor_id.hex(), "self", actor)
    assert get(actor.of_a_task.remote()) is None
    assert hpcfut.get_runtime_context().get_actor_id() is None
    raised(RuntimeError, lambda: hpcfut.get_runtime_context().current_actor)


def case_environment_variables() -> None:
    class Reader:
        def __init__(self) -> None:
            self.first = self.read()

        def read(self) -> str | None:
            import os

            return os.environ.get("HPCFUT_TEST_OF_ACTORS")

        def both(self) -> Any:
            return self.first, self.read()

    variables = {"env_vars": {"HPCFUT_TEST_OF_ACTORS": "set"}}
    assert get(hpcfut.remote(Reader).options(runtime_env=variables).remote().both.remote()) == ("set", "set")
    assert get(hpcfut.remote(Reader).remote().both.remote()) == (None, None)


def case_what_makes_no_sense_is_refused() -> None:
    counter = Counters.remote()
    assert "Counter.remote(...)" in str(raised(TypeError, Counters))
    assert "handle.add.remote(...)" in str(raised(TypeError, counter.add))
    assert "It has: __call__, add" in str(raised(AttributeError, lambda: counter.subtract))
    assert "'max_retries' is not an option of remote classes" in str(
        raised(ValueError, Counters.options, max_retries=1)
    )
    assert "'num_cpus' is not an option of methods" in str(raised(ValueError, counter.add.options, num_cpus=1))
    assert "a process of its own" in str(raised(ValueError, Counters.options, isolation="process"))
    assert "give_up" in str(raised(ValueError, hpcfut.method, give_up=1))
    for option, value in {
        "max_restarts": -2,
        "max_concurrency": 0,
        "concurrency_groups": {"io": 0},
        "lifetime": "long",
        "get_if_exists": True,
        "num_cpus": -1,
        "name": 5,
        "max_pending_calls": 0,
    }.items():
        assert option in str(raised(ValueError, Counters.options, **{option: value}))
    assert "the concurrency group 'io'" in str(
        raised(ValueError, hpcfut.remote, type("C", (), {"m": hpcfut.method(concurrency_group="io")(lambda self: 0)}))
    )
    assert "kill() was given" in str(raised(TypeError, hpcfut.kill, 5))
    assert "remote class already" in str(raised(TypeError, hpcfut.remote, Counters))
    raised(TypeError, get, counter)
