"""Object refs: the user's handle on a value that exists, or will exist, somewhere in the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from hpcfut.model.ids import name_of, owner_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from hpcfut.api.futures import RefFuture
    from hpcfut.runtime.mailbox import Released

Value = TypeVar("Value")


class ObjectRef(Generic[Value]):
    """Names a value; ``get`` gives it.

    A ref may be passed to tasks (at the top level of a call it is replaced by its value), returned, put inside other
    values, compared and hashed. The value lives for as long as anybody in the job holds a ref to it.

    Example:
        >>> ref = hpcfut.put("a value")
        >>> hpcfut.get(ref)
        'a value'
    """

    __slots__ = ("__weakref__", "_object_id", "_released")

    def __init__(self, object_id: int, released: Released) -> None:
        """Refs are made by hpcfut; the ref counts once, from now until it is collected."""
        self._object_id = object_id
        self._released = released

    def __del__(self) -> None:
        try:
            self._released.append(self._object_id)
        except AttributeError:  # A Ctrl-C came before it was whole; nobody has seen it, and it goes with the session.
            return

    def hex(self) -> str:
        """The id of the object as 16 hexadecimal digits.

        Example:
            >>> len(hpcfut.put(1).hex())
            16
        """
        return f"{self._object_id:016x}"

    @property
    def owner_rank(self) -> int:
        """The rank that owns the object: where the task that makes it was submitted, or where it was put.

        Example:
            >>> hpcfut.put(1).owner_rank
            0
        """
        return owner_of(self._object_id)

    def __await__(self) -> Generator[Any, None, Value]:
        """``await ref`` gives the value, as ``get`` does, while the event loop goes on.

        Cancelling the await leaves the task alone. ``asyncio.gather(*refs)`` and ``asyncio.wait_for(ref, 5)`` take
        refs.
        """
        from hpcfut.api.awaiting import awaited  # Brings asyncio, which takes long to load.

        return awaited(self)

    def future(self) -> RefFuture[Value]:
        """The value as a ``concurrent.futures.Future``, for code that knows those.

        Cancelling it cancels the task. Callbacks run one after the other, on a thread that may call hpcfut.

        Example:
            >>> future = hpcfut.put(7).future()
            >>> future.result(timeout=60)
            7
        """
        from hpcfut.api.futures import RefFuture

        return RefFuture(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._object_id == self._object_id

    def __hash__(self) -> int:
        return hash(self._object_id)

    def __repr__(self) -> str:
        return f"ObjectRef({name_of(self._object_id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled by hand, because nobody would know that the copy needs the value. Pass the "
            f"ref as an argument or a result of a task, or inside one: hpcfut counts it there."
        )

    def __copy__(self) -> ObjectRef[Value]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[Value]:
        return self


def id_of(ref: ObjectRef[Any]) -> int:
    """The id of the object that a ref names."""
    return ref._object_id
