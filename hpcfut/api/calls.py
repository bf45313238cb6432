"""``put``, ``empty``, ``lazy_array``, ``get``, ``wait`` and ``as_completed``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, SupportsIndex, TypeVar, overload

from hpcfut.api.failures import exception_of
from hpcfut.api.generators import ObjectRefGenerator
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import current, runtime_of
from hpcfut.api.timeouts import checked_timeout
from hpcfut.model.errors import GetTimeoutError, NotARefError
from hpcfut.model.failure import Failure
from hpcfut.runtime.runtime import Runtime
from hpcfut.runtime.waiter import Waiter
from hpcfut.runtime.watching import ReadyObjects

Value = TypeVar("Value")
Entry = TypeVar("Entry")


def put(value: Value) -> ObjectRef[Value]:
    """Store a value once, to pass it to many tasks by reference.

    The value is a snapshot. Refs inside it are kept alive with it.

    Example:
        >>> table = hpcfut.put({"a": 1})
        >>> look_up = hpcfut.remote(lambda table, key: table[key])
        >>> hpcfut.get(look_up.remote(table, "a"))
        1

    Raises:
        TypeError: The value is a ref already.
        UnpicklableError: The value cannot be sent to another rank.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put() was given a ref, which names a value that is stored already. Use the ref itself.")
    runtime = current()
    return ObjectRef(runtime.put(value), runtime.released)


def empty(shape: SupportsIndex | Sequence[SupportsIndex], dtype: Any = float, order: Literal["C", "F"] = "C") -> Any:
    """A NumPy array to fill and then store: ``put`` of it, or returning it from a task, copies nothing.

    It lies in the object store from the beginning. Storing it makes it read-only; what was built over it before
    (slices, say) stays writable, and must not be written any more: with ``HPCFUT_DEBUG=1`` in the environment of all
    ranks that is found out. What is stored is the array itself: parts of it, other shapes of it and values that have it
    inside are stored with a copy, as is an array that is stored a second time. An array that is dropped gives its room
    back.

    Arrays of Python objects, and those small enough to travel in messages, are ordinary ones.

    Example:
        >>> squares = hpcfut.empty(1_000_000, dtype="i8")
        >>> squares[:] = range(1_000_000)
        >>> squares *= squares
        >>> ref = hpcfut.put(squares)
        >>> int(hpcfut.get(ref)[-1]), squares.flags.writeable
        (999998000001, False)

    Args:
        shape: As for ``numpy.empty``; its values are arbitrary too.
        dtype: The type of its elements.
        order: "C" (rows lie together) or "F" (columns do).

    Raises:
        ObjectStoreFullError: There is no room for it on this rank.
        ValueError: It cannot be, or has another order.
        TypeError: It cannot be.
    """
    return current().empty(shape, dtype, order)


def lazy_array(
    fill: Callable[..., object], shape: SupportsIndex | Sequence[SupportsIndex], dtype: Any, *args: Any
) -> ObjectRef[Any]:
    """A ref to an array that is filled when it is first wanted, by the rank that wants it.

    ``fill(array, *args)`` is called with an array of this shape and dtype, in C order and with arbitrary values, which
    lies in the object store already. Nothing is called before a ``get``, or a task that has the ref as argument, wants
    the array. Each rank that does has it filled for itself, and keeps it for later tasks. Where memory is short the
    array is dropped, and filled again when it is wanted again, so that ``fill`` must give the same each time: it reads
    a part of a file, say.

    It runs on a thread of its own, beside tasks. It must not keep the array, nor views of it, nor wait for tasks: a
    ``get`` of what is not ready yet raises in it. What it raises itself is raised by the ``get`` of the array, as what
    a task raises is, and tasks that have the ref as argument fail with it. The next ``get`` tries again.
    ``cancel`` does nothing to it.

    Example:
        >>> def count_from(array, first):
        ...     array[:] = range(first, first + len(array))
        >>> refs = [hpcfut.lazy_array(count_from, 1000, "i8", first) for first in range(0, 10_000, 1000)]
        >>> total = hpcfut.remote(lambda array: int(array.sum()))
        >>> sum(hpcfut.get([total.remote(ref) for ref in refs]))
        49995000

    Args:
        fill: A function that can be sent to another rank.
        shape: As for ``numpy.empty``.
        dtype: The type of its elements, which are no Python objects.
        args: Further arguments of ``fill``: no refs, and nothing large.

    Raises:
        TypeError: There is no such array, ``fill`` is no function, or the arguments have refs inside.
        ValueError: There is no such array, or the arguments are large.
        UnpicklableError: The function or an argument cannot be sent to another rank.
    """
    runtime = current()
    runtime.demand_session()
    object_id = runtime.sources.put(fill, shape, dtype, args)
    runtime.demand_no_interruption((object_id,))
    return ObjectRef(object_id, runtime.released)


@overload
def get(refs: ObjectRef[Value], *, timeout: float | None = None) -> Value: ...
@overload
def get(refs: Sequence[ObjectRef[Any]], *, timeout: float | None = None) -> list[Any]: ...


def get(refs: ObjectRef[Any] | Sequence[ObjectRef[Any]], *, timeout: float | None = None) -> Any:
    """Wait for values and return them.

    Arrays come back read-only. Inside a task, the task's slot is free for other tasks meanwhile.

    Example:
        >>> square = hpcfut.remote(lambda x: x * x)
        >>> hpcfut.get([square.remote(i) for i in range(4)], timeout=60)
        [0, 1, 4, 9]

    Args:
        refs: One ref, or a list of them.
        timeout: Seconds to wait at most; 0 asks without waiting.

    Returns:
        The value, or the list of values in the order of the refs.

    Raises:
        TaskError: The task that makes a value raised; also a subclass of the type that it raised.
        GetTimeoutError: The time was over first.
        NotARefError: Something else than a ref was given; both a ``TypeError`` and a ``ValueError``.
        ValueError: The timeout is no number of seconds.
    """
    if isinstance(refs, ObjectRef):
        runtime = runtime_of(refs)
        object_id = refs._object_id
        if timeout is not None:
            timeout = checked_timeout(timeout, "get")
        elif (payload := runtime.at_hand(object_id, is_fetching=True)) is not None:
            return runtime.pickling.loads(payload)
        ready = runtime.wait([object_id], 1, timeout, True, True)
        if ready is None:
            raise _too_late(1, timeout)
        value = ready.values[0]
        return runtime.pickling.loads(value) if type(value) is bytes else rebuild(runtime, value)
    refs = _checked(refs, "get")
    if not refs:
        return []
    ids = [ref._object_id for ref in refs]
    runtime = runtime_of(*refs)
    distinct = list(dict.fromkeys(ids))
    ready = _fetch(runtime, distinct, timeout)
    values = ready.values
    if len(distinct) != len(ids):
        # Some are not there where others have failed, which is raised.
        by_id = dict(zip(ready.object_ids, values, strict=True))
        values = [by_id[object_id] for object_id in ids if object_id in by_id]
    loads = runtime.pickling.loads
    return [loads(value) if type(value) is bytes else rebuild(runtime, value) for value in values]


def _fetch(runtime: Runtime, object_ids: list[int], timeout: float | None) -> Waiter:
    if timeout is not None:
        timeout = checked_timeout(timeout, "get")
    ready = runtime.wait(object_ids, len(object_ids), timeout, True, True)
    if ready is None:
        raise _too_late(len(object_ids), timeout)
    return ready


def _too_late(n_values: int, timeout: float | None) -> GetTimeoutError:
    return GetTimeoutError(
        f"After {timeout:g} s not all of the {n_values} values were ready. Wait longer, or use wait() to take those "
        f"that are."
    )


def rebuild(runtime: Runtime, value: Any) -> Any:
    """The value of an object from what a wait or a watch brought; raises what stands for a failure."""
    if isinstance(value, Failure):
        raise exception_of(value, runtime.pickling.loads_exception)
    return runtime.pickling.loads(value)


def wait(
    refs: Sequence[ObjectRef[Any]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Wait until some of the refs are ready.

    Example:
        >>> square = hpcfut.remote(lambda x: x * x)
        >>> ready, others = hpcfut.wait([square.remote(i) for i in range(4)], num_returns=3)
        >>> len(ready), len(others)
        (3, 1)

    Args:
        refs: Distinct refs; without any, nothing is ready and nothing is left.
        num_returns: How many to wait for.
        timeout: Seconds to wait at most; 0 asks without waiting.
        fetch_local: Whether ready means that the value has come to this rank, and not only that it exists. It may have
            had to make room again, if the values are more than the object store holds.

    Returns:
        The ready refs, ``num_returns`` at most, and all others, both in the order given. A failed task is ready.

    Raises:
        ValueError: A ref stands twice, ``num_returns`` fits no list of this length, or the timeout is no number of
        seconds. NotARefError: Something else than a ref was given; both a ``TypeError`` and a ``ValueError``.
    """
    refs = _listed(refs, "wait")
    if not refs:
        return [], []
    if type(refs[0]) is not ObjectRef:
        _checked(refs, "wait")
    runtime = runtime_of(refs[0])
    try:
        ids = [ref._object_id for ref in refs]
    except AttributeError:
        _checked(refs, "wait")
        raise
    # Programs wait for one ref of very many, and then for one of the others, about which nothing is new.
    if ids != runtime.awaited_ids:
        _checked(refs, "wait")
        runtime_of(*refs)
        if len(set(ids)) != len(ids):
            raise ValueError("wait() was given a ref twice. Give every ref once.")
    if type(num_returns) is not int or not 0 < num_returns <= len(ids):
        raise ValueError(
            f"num_returns is {num_returns!r}; with {len(ids)} refs it must be a whole number from 1 to {len(ids)}."
        )
    if timeout is not None:
        timeout = checked_timeout(timeout, "wait")
    if num_returns == 1 and runtime.at_hand(ids[0]) is not None:
        runtime.awaited_ids = ids[1:]
        return [refs.pop(0)], refs
    found = runtime.wait(ids, num_returns, timeout, fetch_local, False)
    # In the moment in which the time was over more may have become ready than were asked for.
    done = found.object_ids[:num_returns] if found is not None else []
    positions: list[int] = []
    for object_id in done:
        positions.append(ids.index(object_id, positions[-1] + 1 if positions else 0))
    runtime.awaited_ids = _without(ids, positions)
    return [refs[position] for position in positions], _without(refs, positions)


def _without(entries: list[Entry], positions: list[int]) -> list[Entry]:
    """All but the entries at these positions, which count up. They are moved and not looked at."""
    others: list[Entry] = []
    start = 0
    for position in positions:
        others += entries[start:position]
        start = position + 1
    others += entries[start:]
    return others


def as_completed(refs: Iterable[ObjectRef[Value]], timeout: float | None = None) -> Iterator[ObjectRef[Value]]:
    """Give every ref once, as soon as it is ready, the first to be ready first.

    A failed task is ready; ``get`` of its ref raises, ``as_completed`` does not. A value that is stored on another rank
    stays there until somebody gets it. Ten thousand refs cost no more each than ten.

    Example:
        >>> square = hpcfut.remote(lambda x: x * x)
        >>> sum(hpcfut.get(ref) for ref in hpcfut.as_completed([square.remote(i) for i in range(5)]))
        30

    Args:
        refs: Distinct refs, of any owner.
        timeout: Seconds from the first ``next()`` on within which all must be ready.

    Returns:
        An iterator over the refs. It may be left before its end.

    Raises:
        GetTimeoutError: The time was over; raised by ``next()``.
        ValueError: A ref stands twice, or the timeout is no number of seconds.
        NotARefError: Something else than a ref was given; both a ``TypeError`` and a ``ValueError``.
    """
    checked = _checked(refs, "as_completed")
    by_id = {ref._object_id: ref for ref in checked}
    if len(by_id) != len(checked):
        raise ValueError("as_completed() was given a ref twice. Give every ref once.")
    if timeout is not None:
        timeout = checked_timeout(timeout, "as_completed")
    runtime_of(*checked)
    return _completed(by_id, timeout)


def _completed(pending: dict[int, ObjectRef[Value]], timeout: float | None) -> Iterator[ObjectRef[Value]]:
    if not pending:
        return
    n_refs = len(pending)
    runtime = runtime_of(*pending.values())
    deadline = None if timeout is None else runtime.now() + timeout
    ready = ReadyObjects(runtime, list(pending))
    try:
        while pending:
            object_id = ready.take(deadline)
            if object_id is None:
                raise GetTimeoutError(
                    f"After {timeout:g} s {len(pending)} of the {n_refs} values were not ready. Wait longer, or look "
                    f"whether their tasks wait for something that nobody gives them."
                )
            # Whoever takes the ref may be the last to hold it.
            yield pending.pop(object_id)
    finally:
        ready.close()


def _listed(refs: Any, name: str) -> list[Any]:
    if isinstance(refs, str | bytes | dict) or not hasattr(refs, "__iter__"):
        raise NotARefError(
            f"{name}() was given a {type(refs).__name__}. Give it {'a ref or ' * (name == 'get')}a list of refs."
        )
    if isinstance(refs, ObjectRefGenerator):
        raise NotARefError(
            f"{name}() was given {refs!r}, whose refs come one by one. Take them in a loop, or give all: "
            f"{name}(list(generator))."
        )
    return list(refs)


def _checked(refs: Any, name: str) -> list[ObjectRef[Any]]:
    checked = _listed(refs, name)
    if {*map(type, checked)} <= {ObjectRef}:
        return checked
    for position, ref in enumerate(checked):
        if not isinstance(ref, ObjectRef):
            raise NotARefError(
                f"{name}() was given a {type(ref).__name__} at position {position} of the list. Every entry must be a "
                f"ref, as .remote() and put() return them."
            )
    return checked
