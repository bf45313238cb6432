"""What the cases of `programs/` share; `driver.py` stands beside it, so that every rank can import it."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import hpcfut
from hpcfut.api import session

Error = TypeVar("Error", bound=BaseException)

WAIT_S = 20.0
LEFT_WITHIN_S = 5.0


def raised(kind: type[Error], call: Callable[..., object], *args: Any, **kwargs: Any) -> Error:
    """Calls, and returns the exception of this kind that the call must raise."""
    try:
        value = call(*args, **kwargs)
    except kind as error:
        # Its frames would keep alive the refs that they hold.
        return error.with_traceback(None)
    raise AssertionError(f"No {kind.__name__} was raised; the call returned {value!r}.")


def get(refs: Any) -> Any:
    """Gets, within a time that no case needs."""
    return hpcfut.get(refs, timeout=WAIT_S)


def on_rank(function: Any, rank: int, **options: Any) -> Any:
    """The remote function with this rank as the only one that may run it."""
    return function.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank), **options)


def n_ranks_of_job() -> int:
    """The number of ranks."""
    return len(hpcfut.nodes())


class Gate:
    """Tasks of any rank of this host wait in front of it until it is opened; leaving its block opens it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gate-"))
        (self.folder / "closed").touch()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.open()

    def open(self) -> None:
        """Lets all pass, now and later."""
        with suppress(FileNotFoundError):
            (self.folder / "closed").unlink()
        while self.folder.exists():  # A task may be arriving meanwhile.
            shutil.rmtree(self.folder, ignore_errors=True)

    def arrive(self) -> None:
        """Says, in a task, that it has come so far, and does not wait."""
        with suppress(FileNotFoundError):
            (self.folder / f"arrived-{uuid.uuid4().hex}").touch()

    def wait(self) -> None:
        """Waits, in a task, until it is open."""
        self.arrive()
        deadline = time.monotonic() + WAIT_S
        while (self.folder / "closed").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Nobody opened the gate within {WAIT_S:g} s.")
            time.sleep(0.001)

    def until_arrived(self, n_tasks: int, refs: Sequence[hpcfut.ObjectRef[Any]]) -> None:
        """Waits, in the driver, until so many tasks stand before it, while the driver's rank may run some of them."""
        deadline = time.monotonic() + WAIT_S
        while (n_arrived := len(list(self.folder.glob("arrived-*")))) < n_tasks:
            assert time.monotonic() < deadline, f"{n_arrived} of {n_tasks} tasks came to the gate."
            hpcfut.wait(refs, num_returns=len(refs), timeout=0.01, fetch_local=False)


@contextmanager
def own_session(**options: Any) -> Iterator[None]:
    """A session of its own; the next case begins another one."""
    hpcfut.shutdown()
    assert not hpcfut.is_initialized()
    hpcfut.init(**options)
    try:
        assert hpcfut.is_initialized()
        yield
    finally:
        hpcfut.shutdown()


def _core() -> Any:
    runtime = session._session.runtime
    assert runtime is not None
    return runtime.engine.core


def _what_is_left() -> dict[str, int]:
    """The sizes of the tables of this rank, without those that are empty."""
    gc.collect()
    runtime = session._session.runtime
    assert runtime is not None
    engine = runtime.engine
    with engine._lock:  # Between two turns, where all invariants hold.
        engine.core.check()
        statistics = engine.core.statistics()
        left = {name: getattr(statistics, name) for name in statistics.__struct_fields__ if name.startswith("n_")}
        left["objects in the window"] = engine.core.copies.arena.n_segments
        left["spilled files"] = engine.spilling.n_files
        left["reads"] = len(engine.movement.reads)
        left["sends"] = len(engine.movement.sends)
        executor = runtime.executor
        left["blocked tasks"] = len(executor.blocked)
        left["cancelled tasks"] = len(executor.cancelled) + len(executor.interruption.pending)
        left["homes of actors"] = len(executor.residents)
        left["environments"] = len(executor.environments.of_task)
    return {name: size for name, size in left.items() if size}


@hpcfut.remote(num_cpus=0)
def _ask_what_is_left() -> dict[str, int]:
    left = _what_is_left()
    # The asking task itself.
    for name in ("n_runs", "n_grants"):
        left[name] -= 1
    return {name: size for name, size in left.items() if size}


@hpcfut.remote(num_cpus=0)
def _pass_by() -> None:
    pass


def what_is_left(ignored: Sequence[str]) -> dict[int, dict[str, int]]:
    """Asks every living rank; a rank with nothing left is not in the answer."""
    own = _what_is_left()  # Before asking makes tasks and leases.
    others = [node["Rank"] for node in hpcfut.nodes() if node["Alive"] and node["Rank"]]
    answers = hpcfut.get([on_rank(_ask_what_is_left, rank).remote() for rank in others], timeout=WAIT_S)
    tables = {0: own, **dict(zip(others, answers, strict=True))}
    left = {rank: {name: size for name, size in sizes.items() if name not in ignored} for rank, sizes in tables.items()}
    return {rank: sizes for rank, sizes in left.items() if sizes}


def assert_nothing_left(*, is_final: bool = False) -> None:
    """Every table of every rank is empty, or soon will be.

    Leases stay a while after their last task, and so do grants; only in the end they are waited for. Templates live as
    long as their functions, and the functions of these programs live as long as the job.
    """
    if not hpcfut.is_initialized():
        return
    ignored = ("n_templates",) if is_final else ("n_templates", "n_leases", "n_grants")
    deadline = time.monotonic() + LEFT_WITHIN_S
    while left := what_is_left(ignored):
        assert time.monotonic() < deadline, f"After {LEFT_WITHIN_S:g} s the ranks still have {left}."
        if is_final:
            time.sleep(0.6)  # Asking again at once would keep the leases of the askers alive.
        else:
            # The rank of a driver runs the tasks that are left while the driver waits, and only then.
            hpcfut.wait([on_rank(_pass_by, 0).remote()], timeout=WAIT_S)


@hpcfut.remote(num_cpus=0)
def _n_templates_here() -> int:
    gc.collect()
    return _core().statistics().n_templates


def n_templates(at_most: int | None = None) -> int:
    """How many remote functions all ranks know together; waits a moment for ``at_most`` of them."""
    deadline = time.monotonic() + LEFT_WITHIN_S
    while True:
        askers = [on_rank(_n_templates_here, rank) for rank in range(n_ranks_of_job())]
        n = sum(hpcfut.get([asker.remote() for asker in askers], timeout=WAIT_S))
        if at_most is None or n <= at_most or time.monotonic() > deadline:
            return n


@hpcfut.remote
def same(value: Any) -> Any:
    return value


@hpcfut.remote
def pass_gate(gate: Gate, value: Any = None) -> Any:
    gate.wait()
    return value


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what becomes true soon; fails if it does not."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "It did not become true."
        time.sleep(0.005)
