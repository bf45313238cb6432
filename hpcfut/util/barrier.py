"""A barrier that tasks, actors and the script share: an actor with ``async`` methods, where no thread waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import hpcfut
from hpcfut.util.queue import N_WAITING_MAX

if TYPE_CHECKING:
    from asyncio import Barrier as BarrierOfLoop


class BrokenBarrierError(RuntimeError):
    """Somebody who was waited for has given up, so that not all will come.

    Example:
        >>> from hpcfut.util import Barrier, BrokenBarrierError
        >>> try:
        ...     Barrier(2).wait(timeout=0.01)
        ... except BrokenBarrierError:
        ...     print("nobody else came")
        nobody else came
    """


class Barrier:
    """Where so many wait for each other, again and again; it may be given to tasks and actors like any value.

    As of ``threading.Barrier``: who waits longer than its timeout breaks the barrier for all, until ``reset``. All of
    them must be able to run at a time: tasks that wait give back their slot and their cores, and no other resource.

    Example:
        >>> from hpcfut.util import Barrier
        >>> barrier = Barrier(3)
        >>> @hpcfut.remote
        ... def take_part(barrier):
        ...     return barrier.wait()
        >>> sorted(hpcfut.get([take_part.remote(barrier) for _ in range(3)]))
        [0, 1, 2]
    """

    def __init__(self, parties: int, actor_options: Mapping[str, Any] | None = None) -> None:
        """``parties``: how many wait for each other. ``actor_options``: of its actor, such as its ``name``."""
        if parties < 1:
            raise ValueError(f"A barrier was made for {parties}. Give it how many wait for each other, 1 or more.")
        self.parties = parties
        options = {"max_concurrency": N_WAITING_MAX, **(actor_options or {})}
        self.actor: Any = _REMOTE_BARRIER.options(**options).remote(parties)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come.

        Args:
            timeout: How many seconds it waits at most.

        Returns:
            A number that each of them has for itself, from 0 on.

        Raises:
            BrokenBarrierError: They did not all come in that time, or the barrier was broken before or meanwhile.
        """
        return _number(hpcfut.get(self.actor.wait.remote(timeout)))

    async def wait_async(self, timeout: float | None = None) -> int:
        """``wait`` in a coroutine, whose event loop goes on."""
        return _number(await self.actor.wait.remote(timeout))

    def abort(self) -> None:
        """Break the barrier, for those who wait and who come."""
        hpcfut.get(self.actor.abort.remote())

    def reset(self) -> None:
        """Make it as new; for those who wait it breaks."""
        hpcfut.get(self.actor.reset.remote())

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        n_waiting: int = hpcfut.get(self.actor.n_waiting.remote())
        return n_waiting

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        is_broken: bool = hpcfut.get(self.actor.broken.remote())
        return is_broken


def _number(place: int) -> int:
    if place < 0:
        raise BrokenBarrierError("The barrier is broken: somebody waited too long for the others, or aborted it.")
    return place


class BarrierActor:
    """Where the calls wait."""

    def __init__(self, n_parties: int) -> None:
        from asyncio import Barrier, timeout  # It takes long to load.

        self._barrier: BarrierOfLoop = Barrier(n_parties)
        self._timeout = timeout

    async def wait(self, timeout_s: float | None) -> int:
        """Wait for all; -1 if the barrier is broken."""
        from asyncio import BrokenBarrierError

        try:
            async with self._timeout(timeout_s):
                return await self._barrier.wait()
        except TimeoutError:
            await self._barrier.abort()
        except BrokenBarrierError:
            pass
        return -1

    async def abort(self) -> None:
        """Break it."""
        await self._barrier.abort()

    async def reset(self) -> None:
        """Make it as new."""
        await self._barrier.reset()

    async def n_waiting(self) -> int:
        """How many wait."""
        return self._barrier.n_waiting

    async def broken(self) -> bool:
        """Whether it is broken."""
        return self._barrier.broken


_REMOTE_BARRIER: Final = hpcfut.remote(BarrierActor)
