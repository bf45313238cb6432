"""A queue that tasks, actors and the script share.

The items lie in an actor with ``async`` methods, on whichever rank that was put: a caller who waits costs a coroutine
there and no thread. Its methods are called by ``Queue`` alone, and tell what came of a call by their value, so that
``Empty`` and ``Full`` are raised where they are caught.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import hpcfut

if TYPE_CHECKING:
    import asyncio

#: All calls of an actor that waits may wait at a time, or those that end their waiting would not get in.
N_WAITING_MAX: Final = 1_000_000_000


class Empty(queue.Empty):
    """The queue has no item, or none came in time; a ``queue.Empty``.

    Example:
        >>> from hpcfut.util.queue import Empty, Queue
        >>> try:
        ...     Queue().get(timeout=0.01)
        ... except Empty:
        ...     print("nothing came")
        nothing came
    """


class Full(queue.Full):
    """The queue has no room, or none came in time; a ``queue.Full``.

    Example:
        >>> from hpcfut.util.queue import Full, Queue
        >>> letters = Queue(maxsize=1)
        >>> letters.put("a")
        >>> try:
        ...     letters.put_nowait("b")
        ... except Full:
        ...     print("no room")
        no room
    """


class Queue:
    """A queue, first in, first out, which may be given to tasks and actors like any value.

    It ends with ``shutdown``, or when nobody holds it any more. The items lie on one rank; a large item is better put
    into the store, with its ref in a list or a tuple as the item: an item that is a ref becomes its value, as an
    argument does. What a rank that died had taken from the queue is gone.

    Example:
        >>> from hpcfut.util.queue import Queue
        >>> letters = Queue(maxsize=10)
        >>> @hpcfut.remote
        ... def write(letters):
        ...     for letter in "abc":
        ...         letters.put(letter)
        >>> ref = write.remote(letters)
        >>> [letters.get(timeout=60) for _ in range(3)]
        ['a', 'b', 'c']
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None) -> None:
        """``maxsize``: how many items there is room for, 0 for any number.

        ``actor_options``: of the actor that has the items, such as ``{"name": "letters"}``.
        """
        self.maxsize = maxsize
        options = {"max_concurrency": N_WAITING_MAX, **(actor_options or {})}
        self.actor: Any = _REMOTE_QUEUE.options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.qsize()

    def qsize(self) -> int:
        """How many items there are."""
        n_items: int = hpcfut.get(self.actor.qsize.remote())
        return n_items

    def size(self) -> int:
        """How many items there are."""
        return self.qsize()

    def empty(self) -> bool:
        """Whether there is no item."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return 0 < self.maxsize <= self.qsize()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, and wait for room, if ``block``, for ``timeout`` seconds or for as long as it takes.

        Raises:
            Full: There was no room in that time.
            ValueError: The timeout is below 0.
        """
        if not hpcfut.get(self.actor.put.remote(item, _limit(block, timeout))):
            raise Full

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """``put`` in a coroutine, whose event loop goes on."""
        if not await self.actor.put.remote(item, _limit(block, timeout)):
            raise Full

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room.

        Raises:
            Full: There is none.
        """
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all of these items, or none if there is not room for all.

        Raises:
            Full: There is not.
            TypeError: They cannot be iterated over.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch() was given {items!r}. Give it items: a list, say.")
        listed = list(items)
        n_items = hpcfut.get(self.actor.put_batch.remote(listed))
        if n_items >= 0:
            raise Full(f"{len(listed)} items do not fit into a queue of {self.maxsize} that has {n_items}.")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item that has been there longest, and wait for one, if ``block``, as ``put`` does.

        Raises:
            Empty: None came in that time.
            ValueError: The timeout is below 0.
        """
        return _only(hpcfut.get(self.actor.get.remote(_limit(block, timeout))))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """``get`` in a coroutine, whose event loop goes on."""
        return _only(await self.actor.get.remote(_limit(block, timeout)))

    def get_nowait(self) -> Any:
        """Take the item that has been there longest, if there is one.

        Raises:
            Empty: There is none.
        """
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, or none if there are not so many.

        Raises:
            Empty: There are not.
            TypeError: This is no whole number.
            ValueError: It is below 0.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"get_nowait_batch() was given {num_items!r}. Give it a number of items, a whole one.")
        if num_items < 0:
            raise ValueError(f"get_nowait_batch() was given {num_items}. Give it a number of items, 0 or more.")
        taken: list[Any] | int = hpcfut.get(self.actor.get_batch.remote(num_items))
        if isinstance(taken, int):
            raise Empty(f"{num_items} items cannot be taken from a queue that has {taken}.")
        return taken

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue; whoever waits for it, or uses it later, is told so by an ``ActorDiedError``.

        Args:
            force: At once, and not after the calls that have come before.
            grace_period_s: How many seconds such calls have.
        """
        is_over = False
        if not force:
            ended = self.actor.__ray_terminate__.remote()
            is_over = bool(hpcfut.wait([ended], timeout=grace_period_s)[0])
        if not is_over:
            hpcfut.kill(self.actor)


def _limit(block: bool, timeout: float | None) -> float | None:
    """How many seconds a call may wait; None for any number."""
    if not block:
        return 0.0
    if timeout is not None and timeout < 0:
        raise ValueError(f"A timeout of {timeout} s is none: give a number of seconds, 0 or more, or None.")
    return timeout


def _only(taken: list[Any]) -> Any:
    if not taken:
        raise Empty
    return taken[0]


class QueueActor:
    """The items of a queue."""

    def __init__(self, n_items_max: int) -> None:
        import asyncio  # It takes long to load.

        self._items: asyncio.Queue[Any] = asyncio.Queue(n_items_max)
        self._timeout = asyncio.timeout

    async def put(self, item: Any, timeout_s: float | None) -> bool:
        """Add an item; False if there was no room in that time."""
        items = self._items
        if timeout_s != 0 or not items.full():
            try:
                async with self._timeout(timeout_s):
                    await items.put(item)
                return True
            except TimeoutError:
                pass
        return False

    async def put_batch(self, added: list[Any]) -> int:
        """Add all items, or none; -1, or how many there are if there is not room for all."""
        items = self._items
        if 0 < items.maxsize < items.qsize() + len(added):
            return items.qsize()
        for item in added:
            items.put_nowait(item)
        return -1

    async def get(self, timeout_s: float | None) -> list[Any]:
        """An item; none if none came in that time."""
        items = self._items
        if timeout_s != 0 or not items.empty():
            try:
                async with self._timeout(timeout_s):
                    return [await items.get()]
            except TimeoutError:
                pass
        return []

    async def get_batch(self, n_items: int) -> list[Any] | int:
        """So many items, or how many there are if there are fewer."""
        items = self._items
        return [items.get_nowait() for _ in range(n_items)] if n_items <= items.qsize() else items.qsize()

    async def qsize(self) -> int:
        """How many items there are."""
        return self._items.qsize()


_REMOTE_QUEUE: Final = hpcfut.remote(QueueActor)
