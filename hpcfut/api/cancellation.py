"""``cancel``."""

from __future__ import annotations

from typing import Any

from hpcfut.api.generators import ObjectRefGenerator
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import runtime_of
from hpcfut.model.errors import NotARefError


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that makes a value; ``get`` of it then raises ``TaskCancelledError``.

    A task that has not started never will. A running one gets ``TaskCancelledError`` at its next bytecode, or out of
    ``get`` and ``wait``; on the main thread of a rank ``time.sleep`` is interrupted. Other code in C goes on until it
    returns, and so does another task that a waiting one runs on its own thread, because it waits for that. A cancelled
    task is not tried again; one that has ended keeps its result. ``cancel`` returns without waiting for any of that.

    Example:
        >>> @hpcfut.remote
        ... def forever():
        ...     while True:
        ...         pass
        >>> ref = forever.remote()
        >>> hpcfut.cancel(ref)

    Args:
        ref: A ref of the task, or its generator. Nothing happens to a value that no task makes: one that was put,
            or that the function of a ``lazy_array`` gives, which goes on to its end.
        force: End the process of the task, if it runs; only a task with ``isolation="process"`` has one. Who borrows
            the ref cannot tell; another task is then cancelled as without ``force``.
        recursive: Cancel the tasks that it submitted, too.

    Raises:
        NotARefError: Something else than a ref was given; both a ``TypeError`` and a ``ValueError``.
        ValueError: ``force`` was given, and the task has no process of its own.
    """
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise NotARefError(
            f"cancel() was given a {type(ref).__name__}. Give it a ref, or what a generator task returned."
        )
    if isinstance(ref, ObjectRefGenerator):
        if force:
            raise ValueError(
                "cancel(force=True) ends the process of a task, which a generator does not have. Cancel it without "
                "force."
            )
        ref.cancel(is_recursive=recursive)
        return
    runtime_of(ref).cancel(ref._object_id, is_recursive=recursive, is_forced=force)
