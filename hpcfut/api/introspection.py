"""Who and where am I, and what does the job have: ``get_runtime_context``, ``nodes``, resources."""

from __future__ import annotations

from typing import Any

from hpcfut.api.handles import ActorHandle, handle_of
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import current
from hpcfut.model.ids import name_of
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.runtime.runtime import Runtime


class RuntimeContext:
    """Where the calling code runs.

    Example:
        >>> context = hpcfut.get_runtime_context()
        >>> context.get_rank(), context.get_task_id()
        (0, None)
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def get_rank(self) -> int:
        """The MPI rank of this process.

        Example:
            >>> hpcfut.get_runtime_context().get_rank()
            0
        """
        return self._runtime.rank

    def get_node_id(self) -> str:
        """The rank as a text, as ``nodes()`` gives it.

        Example:
            >>> hpcfut.get_runtime_context().get_node_id()
            '0'
        """
        return str(self._runtime.rank)

    def get_worker_id(self) -> str:
        """The rank as a text: a rank is one worker.

        Example:
            >>> hpcfut.get_runtime_context().get_worker_id()
            '0'
        """
        return str(self._runtime.rank)

    def get_task_id(self) -> str | None:
        """The id of the running task, ``None`` in a driver.

        Example:
            >>> @hpcfut.remote
            ... def has_id():
            ...     return hpcfut.get_runtime_context().get_task_id() is not None
            >>> hpcfut.get(has_id.remote())
            True
        """
        task_id = self._runtime.task_id
        return name_of(task_id) if task_id else None

    def get_actor_id(self) -> str | None:
        """The id of the actor whose method runs, ``None`` elsewhere.

        Example:
            >>> @hpcfut.remote
            ... class Named:
            ...     def who(self):
            ...         return hpcfut.get_runtime_context().get_actor_id()
            >>> actor = Named.remote()
            >>> hpcfut.get(actor.who.remote()) == actor._actor_id.hex()
            True
        """
        home = self._runtime.actors.here
        return f"{home.actor_id:016x}" if home is not None else None

    def get_actor_name(self) -> str | None:
        """The name of the actor whose method runs, empty if it has none; ``None`` elsewhere.

        Example:
            >>> hpcfut.get_runtime_context().get_actor_name()
        """
        home = self._runtime.actors.here
        return home.name if home is not None else None

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor whose method runs. An actor that keeps one for itself lives until it is killed.

        Example:
            >>> @hpcfut.remote
            ... class Named:
            ...     def me(self):
            ...         return hpcfut.get_runtime_context().current_actor
            >>> actor = Named.remote()
            >>> hpcfut.get(actor.me.remote()) == actor
            True

        Raises:
            RuntimeError: No method of an actor runs.
        """
        runtime = self._runtime
        home = runtime.actors.here
        if home is None:
            raise RuntimeError("current_actor was asked for outside of an actor. Only methods of actors have one.")
        return handle_of(ObjectRef(runtime.actors.held(home.actor_id), runtime.released), *home.descriptor)

    @property
    def namespace(self) -> str:
        """Where names of actors are looked for, unless somebody says otherwise.

        Example:
            >>> hpcfut.init(namespace="mine")
            >>> hpcfut.get_runtime_context().namespace
            'mine'
        """
        return self._runtime.config.namespace

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task, or the actor whose method runs, holds; empty in a driver.

        Example:
            >>> @hpcfut.remote(num_cpus=0.5)
            ... def held():
            ...     return hpcfut.get_runtime_context().get_assigned_resources()
            >>> hpcfut.get(held.remote())
            {'CPU': 0.5}
        """
        core, home = self._runtime.engine.core, self._runtime.actors.here
        resident = core.residents.residents.get(home.actor_id) if home is not None else None
        if resident is not None and resident.template.actor is not None:
            return _amounts(dict(resident.template.actor.held))
        run = core.runs.runs.get(self._runtime.task_id)
        return _amounts(dict(run.template.resources)) if run is not None else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs of this rank, as ``CUDA_VISIBLE_DEVICES`` names them, if the running task has asked for any.

        They are those that were found when the job started; tasks that run on the rank at the same time share them.
        Nothing hides the GPUs of other ranks: a task chooses its own by these names.

        Example:
            >>> hpcfut.get_runtime_context().get_accelerator_ids()
            {'GPU': []}
        """
        gpus = self._runtime.roster[self._runtime.rank].gpus if "GPU" in self.get_assigned_resources() else ()
        return {"GPU": list(gpus)}


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs.

    Example:
        >>> hpcfut.get_runtime_context().get_rank()
        0
    """
    return RuntimeContext(current())


def nodes() -> list[dict[str, Any]]:
    """One dict a rank, with Ray's keys and ``Rank``, ``Host``, ``Pid`` and ``Spare``.

    A rank that has died, in a job that survives that, is not ``Alive``. A ``Spare`` one is given no task before others
    have died.

    Example:
        >>> [node["Rank"] for node in hpcfut.nodes()]
        [0]
    """
    membership = current().engine.core.membership
    alive, active = membership.alive, membership.active
    return [
        {
            "NodeID": str(record.rank),
            "Alive": record.rank in alive,
            "NodeManagerHostname": record.host,
            "Resources": _amounts(record.resources),
            "Rank": record.rank,
            "Host": record.host,
            "Pid": record.pid,
            "Spare": record.rank in alive and record.rank not in active,
        }
        for record in current().roster
    ]


def cluster_resources() -> dict[str, float]:
    """What all ranks that may be given tasks have together, by name: those that are alive, and no spares.

    Example:
        >>> hpcfut.cluster_resources()["CPU"] >= 1
        True
    """
    runtime = current()
    return _sum([runtime.roster[rank].resources for rank in runtime.engine.core.membership.active])


def available_resources() -> dict[str, float]:
    """What of it no task holds at the moment; asks every rank.

    Example:
        >>> hpcfut.available_resources() == hpcfut.cluster_resources()
        True
    """
    runtime = current()
    active = runtime.engine.core.membership.active
    return _sum([free for rank, free in runtime.queries.available_resources().items() if rank in active])


def _sum(parts: list[dict[str, int]]) -> dict[str, float]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return _amounts(total)


def _amounts(resources: dict[str, int]) -> dict[str, float]:
    return {name: amount / RESOURCE_UNIT for name, amount in sorted(resources.items())}
