"""Errors that layers below the API raise; all messages are full sentences."""

from __future__ import annotations


class HpcfutError(Exception):
    """Base of everything that hpcfut raises.

    Example:
        >>> try:
        ...     hpcfut.get("no ref")
        ... except hpcfut.exceptions.HpcfutError as error:
        ...     print(error)
        get() was given a str. Give it a ref or a list of refs.
    """


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

    Example:
        >>> try:
        ...     hpcfut.get(hpcfut.remote(lambda: 1 / 0).remote())
        ... except ZeroDivisionError as error:
        ...     print(isinstance(error, hpcfut.exceptions.TaskError), "-", error.cause)
        True - division by zero

    Attributes:
        cause: The exception that the task raised, or ``None`` if it could not be carried here.
        remote_traceback: The traceback on the rank that ran the task.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""

    def __str__(self) -> str:
        return self.remote_traceback or super().__str__()


class TaskCancelledError(HpcfutError):
    """The task was cancelled.

    Example:
        >>> @hpcfut.remote
        ... def forever():
        ...     while True:
        ...         pass
        >>> ref = forever.remote()
        >>> hpcfut.cancel(ref)
        >>> hpcfut.get(ref)
        Traceback (most recent call last):
        hpcfut.exceptions.TaskCancelledError: Task forever was cancelled.
    """


class WorkerCrashedError(HpcfutError):
    """The process in which a task ran has ended: it crashed, left, or was killed.

    An isolated task has a process of its own; of others it is the rank, where the job survives the death of one. The
    text says which, and on which host. The task has been tried again as often as ``max_retries`` allows.

    Example:
        >>> import os
        >>> @hpcfut.remote(isolation="process", max_retries=0)
        ... def leave():
        ...     os._exit(3)
        >>> hpcfut.get(leave.remote())
        Traceback (most recent call last):
        hpcfut.exceptions.WorkerCrashedError: Task leave on rank 0 ended with its process, whose exit status is 3.
    """


class OutOfMemoryError(HpcfutError):
    """An isolated task used more memory than it had asked for, and its process was ended.

    Example:
        >>> import time
        >>> @hpcfut.remote(isolation="process", memory=10e6, max_retries=0)
        ... def hold():
        ...     held = bytearray(50_000_000)
        ...     time.sleep(60)
        >>> hpcfut.get(hold.remote())
        Traceback (most recent call last):
        hpcfut.exceptions.OutOfMemoryError: Task hold on rank 0 used more memory than it had asked for: 47.7 MiB
    """


class ActorError(HpcfutError):
    """A call of an actor's method has failed, because of the actor and not of the method.

    Example:
        >>> issubclass(hpcfut.exceptions.ActorDiedError, hpcfut.exceptions.ActorError)
        True
    """


class ActorDiedError(ActorError):
    """The actor is dead: it was killed, has left, its constructor has raised, or its rank has died.

    Example:
        >>> @hpcfut.remote
        ... class Broken:
        ...     def __init__(self):
        ...         raise ValueError("no")
        ...     def call(self):
        ...         pass
        >>> try:
        ...     hpcfut.get(Broken.remote().call.remote())
        ... except hpcfut.exceptions.ActorDiedError as error:
        ...     print(str(error).splitlines()[-1])
        ValueError: no
    """


class ActorUnavailableError(ActorError):
    """The actor died during the call, and is started again; it is not known whether the call has been applied.

    Example:
        >>> issubclass(hpcfut.exceptions.ActorUnavailableError, hpcfut.exceptions.ActorError)
        True
    """


class PendingCallsLimitExceededError(HpcfutError):
    """More calls of an actor than its ``max_pending_calls`` have not ended.

    Example:
        >>> @hpcfut.remote(max_pending_calls=1)
        ... class Slow:
        ...     def call(self):
        ...         while True:
        ...             pass
        >>> slow = Slow.remote()
        >>> ref = slow.call.remote()
        >>> slow.call.remote()
        Traceback (most recent call last):
        hpcfut.exceptions.PendingCallsLimitExceededError: 1 calls have not ended yet.
        >>> hpcfut.kill(slow)
    """


class TaskUnschedulableError(HpcfutError):
    """No rank of the job can ever run the task.

    Example:
        >>> hpcfut.get(hpcfut.remote(num_cpus=10**6)(print).remote())
        Traceback (most recent call last):
        hpcfut.exceptions.TaskUnschedulableError: Task print asks for CPU 1e+06; no rank can give it that.
    """


class ObjectLostError(HpcfutError):
    """The value of a ref is gone.

    Example:
        >>> issubclass(hpcfut.exceptions.ObjectLostError, hpcfut.exceptions.HpcfutError)
        True
    """


class ObjectReconstructionFailedError(ObjectLostError):
    """The value of a ref is lost, and could not be made again; the text says why, and what to change.

    Example:
        >>> issubclass(hpcfut.exceptions.ObjectReconstructionFailedError, hpcfut.exceptions.ObjectLostError)
        True
    """


class OwnerDiedError(ObjectLostError):
    """The rank that owned the object has died, and nobody else can say what its value is, or make it again.

    The owner of an object is the rank whose code has put it, or has called the task that makes it.

    Example:
        >>> issubclass(hpcfut.exceptions.OwnerDiedError, hpcfut.exceptions.ObjectLostError)
        True
    """


class SpillError(HpcfutError):
    """Objects could not be moved to a disk, or back from it: it is full, faulty, or may not be written to.

    Example:
        >>> issubclass(hpcfut.exceptions.SpillError, hpcfut.exceptions.HpcfutError)
        True
    """


class ObjectStoreFullError(HpcfutError, MemoryError):
    """There is no room for a large object on the rank that wants to store it.

    Example:
        >>> issubclass(hpcfut.exceptions.ObjectStoreFullError, MemoryError)
        True
    """


class GetTimeoutError(HpcfutError, TimeoutError):
    """The value was not ready in time.

    Example:
        >>> @hpcfut.remote
        ... def forever():
        ...     while True:
        ...         pass
        >>> ref = forever.remote()
        >>> hpcfut.get(ref, timeout=0.1)
        Traceback (most recent call last):
        hpcfut.exceptions.GetTimeoutError: After 0.1 s not all of the 1 values were ready.
        >>> hpcfut.cancel(ref)
    """


class SessionEndedError(HpcfutError, RuntimeError):
    """The session that a ref or a call belongs to is over.

    Example:
        >>> ref = hpcfut.put(1)
        >>> hpcfut.shutdown()
        >>> hpcfut.get(ref)
        Traceback (most recent call last):
        hpcfut.exceptions.SessionEndedError: It belongs to a session that is over.
    """


class NotARefError(HpcfutError, TypeError, ValueError):
    """Something else than a ref was given where a ref is needed.

    Example:
        >>> hpcfut.wait([5])
        Traceback (most recent call last):
        hpcfut.exceptions.NotARefError: wait() was given a int at position 0 of the list.
    """
