"""What a generator task returns: its refs, one by one, while it runs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import demand_current
from hpcfut.api.timeouts import checked_timeout
from hpcfut.model.errors import GetTimeoutError
from hpcfut.model.failure import ENDED, Failure
from hpcfut.model.ids import name_of

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


class ObjectRefGenerator:
    """The refs of a generator task, in order, each as soon as its value is there.

    The task runs ahead, by ``generator_backpressure_num_objects`` values at most, and then leaves its place on the rank
    to others until a ref is taken. If it raises, one more ref comes, whose ``get`` raises that, and then the end. When
    nobody holds the generator any more, the task is cancelled; refs that were taken stay. ``async for`` takes refs in a
    coroutine. Several threads may take refs of one generator; it cannot be sent to a task, its refs can.

    Example:
        >>> @hpcfut.remote
        ... def count(n):
        ...     yield from range(n)
        >>> [hpcfut.get(ref) for ref in count.remote(3)]
        [0, 1, 2]
    """

    __slots__ = ("__weakref__", "_ids", "_runtime", "_task_id")

    def __init__(self, item_ids: tuple[int, ...], runtime: Runtime) -> None:
        """Generators are made by hpcfut; it holds each of these ids once."""
        self._task_id = item_ids[0]
        #: Names for the next refs. Empty after the end.
        self._ids = deque(item_ids)
        self._runtime = runtime

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef[Any]:
        return self._take(None)

    def next(self, timeout: float | None = None) -> ObjectRef[Any]:
        """The next ref, as ``next()`` gives it, within some time.

        Example:
            >>> @hpcfut.remote
            ... def count():
            ...     yield from range(3)
            >>> generator = count.remote()
            >>> hpcfut.get(generator.next(timeout=60))
            0

        Args:
            timeout: Seconds to wait at most; 0 asks without waiting.

        Raises:
            StopIteration: There is none.
            GetTimeoutError: The time was over first. The ref can still be taken later.
            ValueError: The timeout is no number of seconds.
        """
        return self._take(checked_timeout(timeout, "next") if timeout is not None else None)

    def _take(self, timeout_s: float | None) -> ObjectRef[Any]:
        object_id = self._claim()
        if not object_id:
            raise StopIteration
        try:
            ready = self._runtime.wait([object_id], 1, timeout_s, is_fetching=False, may_run=True)
        except BaseException:  # The ref can still be taken later.
            self._ids.appendleft(object_id)
            raise
        if ready is None:
            self._ids.appendleft(object_id)
            raise GetTimeoutError(f"After {timeout_s:g} s the next value of {self!r} was not ready. Wait longer.")
        ref = self._taken(object_id, ready.values[0])
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    async def __anext__(self) -> ObjectRef[Any]:
        from hpcfut.api.awaiting import made  # It loads asyncio.

        object_id = self._claim()
        if not object_id:
            raise StopAsyncIteration
        try:
            value = await made(self._runtime, object_id)
        except BaseException:  # The ref can still be taken later.
            self._ids.appendleft(object_id)
            raise
        ref = self._taken(object_id, value)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def _claim(self) -> int:
        """A name that this thread or coroutine alone waits for, while others wait for the next ones; 0 at the end."""
        demand_current(self._runtime, self)
        try:
            return self._ids.popleft()
        except IndexError:
            return 0

    def _taken(self, object_id: int, value: bytes | Failure | None) -> ObjectRef[Any] | None:
        """The ref of a name that has been waited for; ``None`` if it tells the end."""
        if isinstance(value, Failure) and value.kind == ENDED:
            self._ids.appendleft(object_id)
            self._drop()
            return None
        self._ids.append(self._runtime.allow_item(self._task_id))
        return ObjectRef(object_id, self._runtime.released)

    def cancel(self, *, is_recursive: bool) -> None:
        """Cancel the task; ``hpcfut.cancel`` is the public name.

        Example:
            >>> @hpcfut.remote
            ... def count():
            ...     yield from range(10**9)
            >>> hpcfut.cancel(count.remote())
        """
        demand_current(self._runtime, self)
        self._runtime.cancel(self._task_id, is_recursive=is_recursive)

    def _drop(self) -> None:
        """Nobody takes refs any more."""
        ids = self._ids
        while ids:
            self._runtime.released.append(ids.popleft())

    def __del__(self) -> None:
        if self._ids:
            self._runtime.cancel_later(self._task_id)
            self._drop()

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({name_of(self._task_id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be sent to another rank, because its refs are given to one consumer. Take its refs here, "
            f"and pass these on."
        )
