"""Sessions: begun by the first call, ended, begun again."""

from __future__ import annotations

from collections.abc import Iterator

import hpcfut
from hpcfut.exceptions import SessionEndedError, TaskUnschedulableError
from hpcfut.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, own_session, pass_gate, raised, same


@hpcfut.remote
def make(nbytes: int) -> bytes:
    return bytes(nbytes)


@hpcfut.remote
def rank_here() -> int:
    return hpcfut.get_runtime_context().get_rank()


@hpcfut.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@hpcfut.remote
def make_many(nbytes: int, n: int) -> Iterator[bytes]:
    for _ in range(n):
        yield bytes(nbytes)


def case_the_first_call_begins_a_session() -> None:
    hpcfut.shutdown()
    assert not hpcfut.is_initialized()
    assert hpcfut.get(same.remote(1)) == 1
    assert hpcfut.is_initialized()
    hpcfut.shutdown()
    assert hpcfut.get(hpcfut.put(2)) == 2
    hpcfut.shutdown()
    assert hpcfut.get_runtime_context().get_rank() == 0


def case_a_second_init_raises() -> None:
    with own_session():
        error = raised(RuntimeError, hpcfut.init)
        assert "ignore_reinit_error" in str(error)
        ref = hpcfut.put(1)
        hpcfut.init(ignore_reinit_error=True)
        assert hpcfut.get(ref) == 1


def case_shutdown_in_a_task_is_refused(n_ranks: int) -> None:
    def shut_down() -> None:
        hpcfut.shutdown()

    for rank in range(n_ranks):
        error = raised(RuntimeError, hpcfut.get, on_rank(hpcfut.remote(shut_down), rank).remote())
        assert "in a task" in str(error)
    assert hpcfut.get(same.remote(1)) == 1


def case_shutdown_twice_does_nothing() -> None:
    hpcfut.shutdown()
    hpcfut.shutdown()
    assert not hpcfut.is_initialized()


def case_three_cycles_on_the_same_ranks(n_ranks: int) -> None:
    pids = None
    for cycle in range(3):
        with own_session():
            nodes = hpcfut.nodes()
            assert len(nodes) == n_ranks
            assert pids in (None, [node["Pid"] for node in nodes])
            pids = [node["Pid"] for node in nodes]
            refs = [on_rank(same, rank).remote(bytes(200_000 + cycle)) for rank in range(n_ranks)]
            assert [len(value) for value in hpcfut.get(refs)] == [200_000 + cycle] * n_ranks
            assert hpcfut.get([same.remote(number) for number in range(50)]) == list(range(50))


def case_old_refs_raise() -> None:
    with own_session():
        old = [same.remote(1), hpcfut.put(2), same.remote(bytes(200_000))]
        hpcfut.get(old)
    for ref in old:
        error = raised(SessionEndedError, hpcfut.get, ref)
        assert isinstance(error, RuntimeError)
        assert "shutdown()" in str(error)
        raised(SessionEndedError, hpcfut.wait, [ref])
    with own_session():
        # Ids of the new session do not meet those of the old one.
        new = [same.remote(10), hpcfut.put(20), same.remote(bytes(300_000))]
        for ref in old:
            raised(SessionEndedError, hpcfut.get, ref)
            raised(SessionEndedError, hpcfut.get, [*new, ref])
            raised(SessionEndedError, same.remote, ref)
            raised(SessionEndedError, same.remote, [ref])
            raised(SessionEndedError, same.remote, value={"a": ref})
            raised(SessionEndedError, hpcfut.put, [ref])
        del old, ref
        assert hpcfut.get(new[:2]) == [10, 20]


def case_old_generators_raise(n_ranks: int) -> None:
    with own_session():
        # One that is held back, one that has hardly begun, and one that has come to its end.
        old = [on_rank(count, rank).remote(10**6) for rank in range(n_ranks)]
        refs = [next(items) for items in old]
        assert hpcfut.get(refs) == [0] * n_ranks
        old.append(count.remote(1))
        hpcfut.get(list(old[-1]))
        old.append(count.remote(10**6))
    for items in old:
        raised(SessionEndedError, next, items)
        raised(SessionEndedError, items.next, timeout=0)
        raised(SessionEndedError, hpcfut.cancel, items)
    for ref in refs:
        raised(SessionEndedError, hpcfut.cancel, ref)
    with own_session():
        for items in old:
            raised(SessionEndedError, next, items)
        del old, items
        assert hpcfut.get(list(count.remote(3))) == [0, 1, 2]


def case_old_functions_work_in_a_new_session() -> None:
    captured = 5
    function = hpcfut.remote(lambda: captured)
    for _ in range(3):
        with own_session():
            assert hpcfut.get(function.remote()) == 5
            assert hpcfut.get(same.options(num_cpus=0.5).remote(1)) == 1


def case_arrays_outlive_their_session() -> None:
    import numpy as np

    with own_session():
        array = hpcfut.get(same.remote(np.arange(100_000)))
    with own_session():
        assert hpcfut.get(same.remote(np.ones(100_000))).all()
        assert array[-1] == 99_999


def case_a_session_ends_with_queued_and_running_tasks(n_ranks: int) -> None:
    with Gate() as gate:
        with own_session():
            refs = [on_rank(pass_gate, rank).remote(gate) for rank in range(n_ranks)]
            refs += [same.remote(refs[0]) for _ in range(20)]
            gate.until_arrived(n_ranks, refs)
            refs += [on_rank(pass_gate, rank).remote(gate) for rank in range(n_ranks) for _ in range(3)]
        with own_session():
            assert hpcfut.get(same.remote("next"), timeout=WAIT_S) == "next"


def case_resources_of_ones_own(n_ranks: int) -> None:
    with own_session(resources={"disk": 2, "licence": 0.5}):
        assert hpcfut.cluster_resources()["disk"] == 2 * n_ranks
        assert hpcfut.nodes()[-1]["Resources"]["licence"] == 0.5
        assert hpcfut.get(same.options(resources={"disk": 2, "licence": 0.5}).remote(1), timeout=WAIT_S) == 1
        ref = same.options(resources={"disk": 3}).remote(1)
        assert "disk" in str(raised(TaskUnschedulableError, hpcfut.get, ref, timeout=WAIT_S))
        half = pass_gate.options(num_cpus=0, resources={"licence": 0.5})
        with Gate() as gate:
            holders = [on_rank(half, rank).remote(gate) for rank in range(n_ranks)]
            gate.until_arrived(n_ranks, holders)
            assert "licence" not in {name for name, amount in hpcfut.available_resources().items() if amount}
            late = same.options(num_cpus=0, resources={"licence": 0.25}).remote("late")
            assert hpcfut.wait([late], timeout=0.1) == ([], [late])
            gate.open()
            assert hpcfut.get(late, timeout=WAIT_S) == "late"
            hpcfut.get(holders)
    assert "disk" not in hpcfut.cluster_resources()


@hpcfut.remote(num_cpus=0)
def count_gpus() -> float:
    context = hpcfut.get_runtime_context()
    assert list(context.get_accelerator_ids()) == ["GPU"]
    return context.get_assigned_resources().get("GPU", 0.0)


def case_gpus(n_ranks: int) -> None:
    with own_session(num_gpus=2):
        assert hpcfut.cluster_resources()["GPU"] == 2 * n_ranks
        assert hpcfut.get([count_gpus.options(num_gpus=n).remote() for n in (0, 0.5, 2)], timeout=WAIT_S) == [0, 0.5, 2]
        error = raised(TaskUnschedulableError, hpcfut.get, same.options(num_gpus=3).remote(1), timeout=WAIT_S)
        assert "GPU (the most on one rank is 2)" in str(error)
        assert "init(num_gpus=...)" in str(error)
    with own_session(resources={0: {"GPU": 1}}):
        assert hpcfut.nodes()[0]["Resources"]["GPU"] == 1
        assert hpcfut.get(rank_here.options(num_gpus=1).remote(), timeout=WAIT_S) == 0
    with own_session():
        # Those that are there, on every rank the number of its names.
        for node in hpcfut.nodes():
            n = node["Resources"].get("GPU", 0)
            assert bool(n) == ("GPU" in node["Resources"])
        assert hpcfut.get_runtime_context().get_accelerator_ids() == {"GPU": []}


def case_a_parent_that_holds_the_gpu_that_its_child_needs(n_ranks: int) -> None:
    on_gpu = same.options(num_cpus=0, num_gpus=1)

    @hpcfut.remote(num_cpus=0, num_gpus=0.5)
    def parent(gate: Gate) -> str:
        gate.wait()
        try:
            return hpcfut.get(on_gpu.remote("there was one"))
        except TaskUnschedulableError as error:
            return str(error)

    with own_session(num_gpus=1):
        with Gate() as gate:
            parents = [on_rank(parent, rank).remote(gate) for rank in range(n_ranks)]
            gate.until_arrived(n_ranks, parents)
        assert hpcfut.get([same.remote(number) for number in range(20)], timeout=WAIT_S) == list(range(20))
        answers = hpcfut.get(parents, timeout=WAIT_S)
        told = [answer for answer in answers if answer != "there was one"]
        assert told, "A parent that has been told gives its half back, and another child may run."
        for answer in told:
            assert "Task same asks for GPU 1" in answer
            assert "(GPU 0.5)" in answer
        assert hpcfut.get(on_gpu.remote("later"), timeout=WAIT_S) == "later"


def case_resources_of_named_ranks(n_ranks: int) -> None:
    last = n_ranks - 1
    with own_session(resources={"disk": 2, last: {"camera": 1, "disk": 5}}):
        assert [node["Resources"].get("camera", 0) for node in hpcfut.nodes()] == [0] * last + [1]
        total = hpcfut.cluster_resources()
        assert (total["camera"], total["disk"]) == (1, 2 * last + 5)
        assert hpcfut.available_resources() == total
        at_camera = rank_here.options(resources={"camera": 0.5})
        assert set(hpcfut.get([at_camera.remote() for _ in range(20)], timeout=WAIT_S)) == {last}
        error = raised(TaskUnschedulableError, hpcfut.get, at_camera.options(resources={"camera": 2}).remote())
        assert "camera (the most on one rank is 1)" in str(error)
        if last:
            error = raised(TaskUnschedulableError, hpcfut.get, on_rank(at_camera, 0).remote(), timeout=WAIT_S)
            assert "rank 0 can ever give it camera" in str(error)
            strategy = NodeAffinitySchedulingStrategy(hpcfut.nodes()[0]["NodeID"], soft=True)
            assert hpcfut.get(at_camera.options(scheduling_strategy=strategy).remote(), timeout=WAIT_S) == last


def case_wrong_options_of_init() -> None:
    hpcfut.shutdown()
    wrong = ({"CPU": 1}, {"disk": -1}, {"disk": float("nan")}, {"disk": float("inf")}, {"disk": "1"}, {5: 1})
    for resources in (*wrong, {-1: {"disk": 1}}, {"first": {"disk": 1}}, {0: {"CPU": 1}}, {5: {"disk": 1}}):
        raised(ValueError, hpcfut.init, resources=resources)
        assert not hpcfut.is_initialized()
    raised(ValueError, hpcfut.init, resources={"half a pair: \ud800": 1})
    raised(ValueError, hpcfut.init, resources={"disk": 1e300})
    assert not hpcfut.is_initialized()
    for nbytes in (0, -1, 1.5, "1"):
        raised(ValueError, hpcfut.init, object_store_memory=nbytes)
        assert not hpcfut.is_initialized()
    error = raised(ValueError, hpcfut.init, object_store_memory=1 << 50)
    assert f"object_store_memory={1 << 50} is too much for " in str(error)
    assert "hpcfut doctor" in str(error)
    error = raised(ValueError, hpcfut.init, spill_folder="no such folder")
    assert "no such folder, which is no folder that this user can reach. Name a folder" in str(error)
    assert not hpcfut.is_initialized()
    assert hpcfut.get(same.remote(1)) == 1


def case_an_object_store_that_is_full(n_ranks: int) -> None:
    with own_session(object_store_memory=1_000_000):
        assert hpcfut.nodes()[0]["Resources"]["object_store_memory"] == 1_000_000
        kept = hpcfut.put(bytes(600_000))
        error = raised(MemoryError, hpcfut.put, bytes(1_000_000))
        assert "its object store has" in str(error)
        raised(MemoryError, hpcfut.get, make.remote(2_000_000))
        # What fits alone goes where there is room, if need be to a file.
        also = hpcfut.put(bytes(600_001))
        assert [len(hpcfut.get(ref)) for ref in (kept, also, kept, also)] == [600_000, 600_001] * 2
        del also
        # What is stored elsewhere on the host takes no room here to be read.
        if n_ranks > 1:
            there = on_rank(make, 1).remote(700_000)
            assert len(hpcfut.get(there, timeout=WAIT_S)) == 700_000
            assert hpcfut.get(on_rank(hpcfut.remote(len), 0).remote(there), timeout=WAIT_S) == 700_000
            del there
        assert len(hpcfut.get(kept)) == 600_000
        for _ in range(5):
            # The room of a ref that was dropped is there at once.
            del kept
            kept = hpcfut.put(bytes(600_000))
        assert len(hpcfut.get(kept)) == 600_000
        assert len(hpcfut.get(on_rank(make, n_ranks - 1).remote(300_000), timeout=WAIT_S)) == 300_000
        del kept
        # A generator may make more than there is room for, but no item that never fits; what was there stays.
        items = list(on_rank(make_many, n_ranks - 1).remote(300_000, 6))
        assert [len(item) for item in hpcfut.get(items[:2] + items[-1:], timeout=WAIT_S)] == [300_000] * 3
        (too_large,) = on_rank(make_many, n_ranks - 1).remote(1_000_000, 2)
        assert "its object store has" in str(raised(MemoryError, hpcfut.get, too_large, timeout=WAIT_S))
        del items, too_large
        assert_nothing_left()
