"""What a generator task returns: its refs, one by one, while it runs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import demand_current
from hpcfut.api.timeouts import checked_timeout
from hpcfut.model.errors import GetTimeoutError
from hpcfut.model.failure import ENDED, LOST, Failure
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

    __slots__ = ("__weakref__", "_claimed", "_failure", "_ids", "_runtime", "_task_id")

    def __init__(self, item_ids: tuple[int, ...], runtime: Runtime) -> None:
        """Generators are made by hpcfut; it holds each of these ids once."""
        self._task_id = item_ids[0]
        #: Names for the next refs. Empty after the end.
        self._ids = deque(item_ids)
        #: Names that threads and coroutines wait for at the moment.
        self._claimed: dict[int, None] = {}
        #: How the task failed, once the ref that tells it has been taken.
        self._failure: Failure | None = None
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
            ready = self._runtime.wait([object_id], 1, timeout_s, is_fetching=False, is_taking=True)
        except BaseException:  # A Ctrl-C or a cancel, too: the value stays the next one, for whoever asks again.
            self._give_back(object_id)
            raise
        if ready is None:
            self._give_back(object_id)
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
        except BaseException:  # A Ctrl-C or a cancel, too: the value stays the next one, for whoever asks again.
            self._give_back(object_id)
            raise
        ref = self._taken(object_id, value)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def next_ready(self) -> bool:
        """Whether ``next()`` would give a ref at once.

        Example:
            >>> @hpcfut.remote
            ... def count():
            ...     yield 0
            >>> generator = count.remote()
            >>> hpcfut.get(generator.completed())
            >>> generator.next_ready(), generator.is_finished()
            (True, False)

        Returns:
            False if the next value is not ready yet, and if there will be none.
        """
        is_ready, is_end = self._look()
        return is_ready and not is_end

    def is_finished(self) -> bool:
        """Whether all refs have been taken and the task has ended, so that ``next()`` would raise ``StopIteration``.

        Example:
            >>> @hpcfut.remote
            ... def count():
            ...     yield from range(3)
            >>> generator = count.remote()
            >>> len(list(generator)), generator.is_finished()
            (3, True)
        """
        _, is_end = self._look()
        return is_end

    def completed(self) -> ObjectRef[None]:
        """A ref that is ready when the task has ended; its ``get`` raises what the task raised, or gives ``None``.

        A task that is held back, because nobody takes its refs, does not end.

        Example:
            >>> @hpcfut.remote
            ... def count():
            ...     yield from range(3)
            >>> generator = count.remote()
            >>> ready, pending = hpcfut.wait([generator.completed()], timeout=60)
            >>> len(ready), len(list(generator))
            (1, 3)
        """
        demand_current(self._runtime, self)
        names = (*self._claimed, *self._ids)
        return ObjectRef(self._runtime.end_of(self._task_id, names, self._failure), self._runtime.released)

    def _look(self) -> tuple[bool, bool]:
        """Whether something is told under the next name, and whether that is the end."""
        object_id = self._claim()
        if not object_id:
            return True, True
        try:
            ready = self._runtime.wait([object_id], 1, 0.0, is_fetching=False, is_taking=True)
        finally:
            self._give_back(object_id)
        value = None if ready is None else ready.values[0]
        return ready is not None, isinstance(value, Failure) and value.kind == ENDED

    def _claim(self) -> int:
        """A name that this thread or coroutine alone waits for, while others wait for the next ones; 0 at the end."""
        demand_current(self._runtime, self)
        try:
            object_id = self._ids.popleft()
        except IndexError:
            return 0
        self._claimed[object_id] = None
        return object_id

    def _give_back(self, object_id: int) -> None:
        """The ref of this name can still be taken later."""
        self._ids.appendleft(object_id)
        del self._claimed[object_id]

    def _taken(self, object_id: int, value: bytes | Failure | None) -> ObjectRef[Any] | None:
        """The ref of a name that has been waited for; ``None`` if it tells the end."""
        if isinstance(value, Failure):
            if value.kind == ENDED:
                self._give_back(object_id)
                self._drop()
                return None
            if value.kind != LOST:
                self._failure = value
        del self._claimed[object_id]
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
