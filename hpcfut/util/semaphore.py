"""A semaphore that tasks, actors and the script share: an actor with ``async`` methods, where no thread waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import hpcfut
from hpcfut.util.queue import N_WAITING_MAX

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType


class Semaphore:
    """Lets so many in at a time, of all ranks; the others wait, first come, first served.

    It may be given to tasks and actors like any value, and stands in ``with`` and in ``async with``. Who dies inside
    never leaves: what must not depend on that asks for a resource instead (``resources=`` of a task).

    Example:
        >>> from hpcfut.util import Semaphore
        >>> two_at_a_time = Semaphore(2)
        >>> @hpcfut.remote
        ... def fetch(part, semaphore):
        ...     with semaphore:
        ...         return 2 * part
        >>> hpcfut.get([fetch.remote(part, two_at_a_time) for part in range(5)])
        [0, 2, 4, 6, 8]
    """

    def __init__(self, value: int = 1, actor_options: Mapping[str, Any] | None = None) -> None:
        """``value``: how many may be inside. ``actor_options``: of the actor that counts, such as its ``name``."""
        if value < 0:
            raise ValueError(f"A semaphore was made with {value}. Give it how many may be inside, 0 or more.")
        options = {"max_concurrency": N_WAITING_MAX, **(actor_options or {})}
        self.actor: Any = _REMOTE_SEMAPHORE.options(**options).remote(value)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Go in, and wait for that, if ``blocking``, for ``timeout`` seconds or for as long as it takes.

        Returns:
            Whether it went in.
        """
        is_in: bool = hpcfut.get(self.actor.acquire.remote(timeout if blocking else 0.0))
        return is_in

    async def acquire_async(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """``acquire`` in a coroutine, whose event loop goes on."""
        is_in: bool = await self.actor.acquire.remote(timeout if blocking else 0.0)
        return is_in

    def release(self, n: int = 1) -> None:
        """Go out, or let in so many more; when it returns, they can go in.

        Raises:
            ValueError: ``n`` is below 1.
        """
        hpcfut.get(self.actor.release.remote(_checked(n)))

    async def release_async(self, n: int = 1) -> None:
        """``release`` in a coroutine, whose event loop goes on."""
        await self.actor.release.remote(_checked(n))

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    async def __aenter__(self) -> Semaphore:
        await self.acquire_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.release_async()


def _checked(n: int) -> int:
    if n < 1:
        raise ValueError(f"release() was given {n}. Give it how many to let in, 1 or more.")
    return n


class SemaphoreActor:
    """What counts."""

    def __init__(self, value: int) -> None:
        import asyncio  # It takes long to load.

        self._semaphore: asyncio.Semaphore = asyncio.Semaphore(value)
        self._timeout = asyncio.timeout

    async def acquire(self, timeout_s: float | None) -> bool:
        """Go in; False if that could not be in that time."""
        semaphore = self._semaphore
        if timeout_s is not None and timeout_s <= 0 and semaphore.locked():
            return False
        try:
            async with self._timeout(timeout_s):
                return await semaphore.acquire()
        except TimeoutError:
            return False

    async def release(self, n: int) -> None:
        """Let so many more in."""
        for _ in range(n):
            self._semaphore.release()


_REMOTE_SEMAPHORE: Final = hpcfut.remote(SemaphoreActor)
