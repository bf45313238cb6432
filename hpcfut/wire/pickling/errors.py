"""What is raised where a value cannot travel."""

from __future__ import annotations

from hpcfut.model.errors import HpcfutError


class UnpicklableError(HpcfutError, TypeError):
    """A value cannot be pickled; the sentence names the part that is in the way.

    Example:
        >>> import threading
        >>> hpcfut.put({"lock": threading.Lock()})
        Traceback (most recent call last):
        hpcfut.exceptions.UnpicklableError: ['lock'] is a lock, which cannot be sent.
    """


class UnloadableError(HpcfutError):
    """A payload cannot be turned back into a value on this rank.

    Example:
        >>> class Odd:
        ...     def __reduce__(self):
        ...         return int, ("no number",)
        >>> hpcfut.get(hpcfut.put(Odd()))
        Traceback (most recent call last):
        hpcfut.exceptions.UnloadableError: A value cannot be rebuilt on this rank.
    """


def complaint_of(error: Exception) -> str:
    """The sentence about a value that cannot be rebuilt."""
    text = f"A value cannot be rebuilt on this rank ({type(error).__name__}: {error})."
    if isinstance(error, ImportError):
        return (
            f"{text} Install {error.name or 'the module'} where every rank finds it, put it beside the script, or call "
            "cloudpickle.register_pickle_by_value on it before sending."
        )
    return f"{text} Check that its class can be unpickled, and that all ranks have the same versions of its package."
