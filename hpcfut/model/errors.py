"""Errors that layers below the API raise; all messages are full sentences."""

from __future__ import annotations


class HpcfutError(Exception):
    """Base of everything that hpcfut raises."""


class CodecError(HpcfutError):
    """A frame could not be decoded: it is corrupt, truncated or of another version."""


class FrameRefusedError(HpcfutError):
    """What a rank has sent cannot be: it is damaged, or does not fit what was said before."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"What rank {rank} has sent cannot be accepted. {reason}")
        self.rank = rank
        self.reason = reason

    @classmethod
    def of_message(cls, rank: int, name: str, error: Exception) -> FrameRefusedError:
        """Because of what a machine of the core tripped over when it took in a message."""
        trace, where = error.__traceback__, ""
        while trace is not None:
            if trace.tb_frame.f_code.co_name != "__missing__":  # That is how a table says no.
                where = f"{trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
            trace = trace.tb_next
        return cls(
            rank,
            f"A {name} does not fit what was said before ({type(error).__name__} in {where}: {error}). Unless a memory "
            f"or a network is faulty, this is a bug in hpcfut; please report it.",
        )


class RankLostError(HpcfutError):
    """An edge has proof that a rank is dead."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"Rank {rank} is dead: {reason}")
        self.rank = rank
        self.reason = reason


class IllegalTransitionError(HpcfutError):
    """The core was told something that cannot follow from what it was told before; a bug in hpcfut."""


class InvariantError(HpcfutError):
    """A table of the core contradicts itself; a bug in hpcfut."""


class TaskError(HpcfutError):
    """A task raised. What ``get`` raises is also a subclass of the user's exception type, where that can be.

    Attributes:
        cause: The exception that the task raised, or ``None`` if it could not be carried here.
        remote_traceback: The traceback on the rank that ran the task.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""

    def __str__(self) -> str:
        return self.remote_traceback or super().__str__()


class TaskCancelledError(HpcfutError):
    """The task was cancelled."""


class TaskUnschedulableError(HpcfutError):
    """No rank of the job can ever run the task."""


class ObjectLostError(HpcfutError):
    """The value of a ref is gone."""


class GetTimeoutError(HpcfutError, TimeoutError):
    """The value was not ready in time."""


class SessionEndedError(HpcfutError, RuntimeError):
    """The session that a ref or a call belongs to is over."""


class NotARefError(HpcfutError, TypeError, ValueError):
    """Something else than a ref was given where a ref is needed."""
