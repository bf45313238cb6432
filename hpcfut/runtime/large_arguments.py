"""Large arguments of a call, which are put first and then travel by reference, from a rank as from a child of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hpcfut.wire.packing import Pickled
from hpcfut.wire.pickling import Pickling


def put_large(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    pickling: Pickling,
    nbytes_inline_max: int,
    put: Callable[[Pickled], int],
    released: deque[int],
) -> tuple[tuple[Any, ...], dict[str, Any], list[int]]:
    """Put the arguments that take more than a quarter of what travels inline.

    Args:
        args: The positional arguments.
        kwargs: The others.
        pickling: Of the process.
        nbytes_inline_max: Bytes that travel inline.
        put: Stores a value; gives its id, which is held once by the call.
        released: Where the ids go of objects that nobody holds any more.

    Returns:
        The arguments, with refs in place of what was put, and the ids to release after the call.
    """
    large: list[int] = []

    def by_reference(value: Any) -> Any:
        if isinstance(value, pickling.ref_type):
            return value
        pickled = pickling.dumps(value)
        if pickled.nbytes <= nbytes_inline_max // 4:
            return value
        object_id = put(pickled)
        large.append(object_id)
        return pickling.make_ref(object_id)

    try:
        return tuple(map(by_reference, args)), {name: by_reference(value) for name, value in kwargs.items()}, large
    except BaseException:  # A Ctrl-C as well: nobody will make the call that holds them.
        released.extend(large)
        raise
