"""What a job has, what a task holds, and where code runs."""

from __future__ import annotations

import math
import os
import socket
from typing import Any

import hpcfut
from hpcfut.exceptions import TaskUnschedulableError
from tests.mpi.support import WAIT_S, Gate, on_rank, pass_gate, raised, same, until


@hpcfut.remote
def context_here() -> dict[str, Any]:
    context = hpcfut.get_runtime_context()
    return {
        "rank": context.get_rank(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "resources": context.get_assigned_resources(),
        "pid": os.getpid(),
    }


def case_nodes_names_every_rank(n_ranks: int) -> None:
    nodes = hpcfut.nodes()
    assert [node["Rank"] for node in nodes] == list(range(n_ranks))
    assert [node["NodeID"] for node in nodes] == [str(rank) for rank in range(n_ranks)]
    assert {node["Host"] for node in nodes} == {node["NodeManagerHostname"] for node in nodes}
    assert nodes[0]["Host"] == socket.gethostname()
    assert all(node["Alive"] for node in nodes)
    assert len({node["Pid"] for node in nodes}) == n_ranks
    for node in nodes:
        assert node["Resources"]["CPU"] >= 1
        assert node["Resources"]["memory"] > 0
        assert node["Resources"]["object_store_memory"] > 0


def case_the_context_of_a_task(n_ranks: int) -> None:
    for rank, node in enumerate(hpcfut.nodes()):
        context = hpcfut.get(on_rank(context_here, rank).remote())
        assert context["rank"] == rank
        assert context["node"] == context["worker"] == str(rank)
        assert context["pid"] == node["Pid"]
        assert context["resources"] == {"CPU": 1.0}
        assert context["task"] is not None
    tasks = [context["task"] for context in hpcfut.get([context_here.remote() for _ in range(10)])]
    assert len(set(tasks)) == 10


def case_the_context_of_a_driver() -> None:
    context = hpcfut.get_runtime_context()
    assert context.get_rank() == 0
    assert context.get_task_id() is None
    assert context.get_assigned_resources() == {}


def case_the_context_after_a_nested_task() -> None:
    @hpcfut.remote
    def outer() -> tuple[str | None, str | None]:
        before = hpcfut.get_runtime_context().get_task_id()
        hpcfut.get([context_here.remote() for _ in range(5)])
        return before, hpcfut.get_runtime_context().get_task_id()

    before, after = hpcfut.get(outer.remote())
    assert before == after is not None


def case_cluster_resources_are_sums(n_ranks: int) -> None:
    total = hpcfut.cluster_resources()
    nodes = hpcfut.nodes()
    for name in ("CPU", "memory", "object_store_memory"):
        # Ranks look at the machine one after the other, and sums of what they found are rounded.
        assert math.isclose(total[name], sum(node["Resources"][name] for node in nodes))


def case_available_resources_are_what_no_task_holds(n_ranks: int) -> None:
    total = hpcfut.cluster_resources()
    assert hpcfut.available_resources() == total
    with Gate() as gate:
        refs = [on_rank(pass_gate, rank).remote(gate) for rank in range(n_ranks)]
        gate.until_arrived(n_ranks, refs)
        available = hpcfut.available_resources()
        assert available["CPU"] == total["CPU"] - n_ranks
        assert available["memory"] == total["memory"]
        gate.open()
        hpcfut.get(refs)
    assert hpcfut.available_resources() == total


def case_a_blocked_task_holds_no_cpu(n_ranks: int) -> None:
    @hpcfut.remote(memory=1_000)
    def blocked(gates: list[Gate]) -> None:
        hpcfut.get(on_rank(pass_gate, 0).remote(gates[0]))

    total = hpcfut.cluster_resources()
    with Gate() as gate:
        outer = on_rank(blocked, n_ranks - 1).remote([gate])
        gate.until_arrived(1, [outer])
        # The one at the gate holds its core, the blocked one its memory only; it may block after its child runs.
        until(lambda: hpcfut.available_resources()["CPU"] == total["CPU"] - 1)
        assert hpcfut.available_resources()["memory"] == total["memory"] - 1_000
        gate.open()
        hpcfut.get(outer)


def case_assigned_resources_are_those_asked_for() -> None:
    half = context_here.options(num_cpus=0.5, memory=1_000_000)
    assert hpcfut.get(half.remote())["resources"] == {"CPU": 0.5, "memory": 1_000_000.0}
    assert hpcfut.get(context_here.options(num_cpus=0).remote())["resources"] == {}


def case_more_cores_than_any_rank_has_is_an_error() -> None:
    n_cores = max(node["Resources"]["CPU"] for node in hpcfut.nodes())
    ref = same.options(num_cpus=n_cores + 1).remote(1)
    error = raised(TaskUnschedulableError, hpcfut.get, ref, timeout=WAIT_S)
    assert "--cpus-per-rank" in str(error)
    assert "same" in str(error)
    # So is what depends on it, and the error is ready.
    dependent = same.remote(ref)
    raised(TaskUnschedulableError, hpcfut.get, dependent, timeout=WAIT_S)
    assert hpcfut.wait([ref, dependent], num_returns=2, timeout=WAIT_S) == ([ref, dependent], [])
    all_of_one = same.options(num_cpus=n_cores).remote("it fits")
    assert hpcfut.get(all_of_one) == "it fits"


def case_an_unknown_resource_is_an_error() -> None:
    error = raised(TaskUnschedulableError, hpcfut.get, same.options(resources={"tape": 1}).remote(1), timeout=WAIT_S)
    assert "tape" in str(error)
    assert hpcfut.get(same.options(resources={"tape": 0}).remote("none needed")) == "none needed"


def case_more_memory_than_any_rank_has_is_an_error() -> None:
    raised(TaskUnschedulableError, hpcfut.get, same.options(memory=1e18).remote(1), timeout=WAIT_S)


def case_an_unschedulable_task_inside_a_task() -> None:
    @hpcfut.remote
    def outer() -> str:
        try:
            hpcfut.get(same.options(resources={"tape": 1}).remote(1))
        except TaskUnschedulableError as error:
            return str(error)
        return "it ran"

    assert "tape" in hpcfut.get(outer.remote(), timeout=WAIT_S)


def case_large_requests_get_their_turn(n_ranks: int) -> None:
    n_cores = int(hpcfut.nodes()[0]["Resources"]["CPU"])
    small = [same.remote(number) for number in range(20)]
    large = [same.options(num_cpus=n_cores).remote(-1) for _ in range(3)]
    more = [same.remote(number) for number in range(20)]
    assert hpcfut.get([*small, *large, *more], timeout=WAIT_S) == [*range(20), -1, -1, -1, *range(20)]


def case_a_parent_that_holds_what_its_child_needs() -> None:
    memory = {node["Rank"]: node["Resources"]["memory"] for node in hpcfut.nodes()}
    most = same.options(memory=0.6 * max(memory.values()), num_cpus=0)

    @hpcfut.remote(memory=0.6 * max(memory.values()), num_cpus=0)
    def parent(gate: Gate) -> str:
        gate.wait()
        try:
            return str(hpcfut.get(most.remote("there was room")))
        except TaskUnschedulableError as error:
            return str(error)

    # As many as there is room for.
    with Gate() as gate:
        parents = [parent.remote(gate) for _ in memory]
        gate.until_arrived(len(memory), parents)
    others = [same.remote(number) for number in range(20)]
    assert hpcfut.get(others, timeout=WAIT_S) == list(range(20)), "Everybody else goes on."
    answers = hpcfut.get(parents, timeout=WAIT_S)
    told = [answer for answer in answers if answer != "there was room"]
    assert told
    for answer in told:
        assert "Task same asks for memory" in answer
        assert "parent on rank" in answer
