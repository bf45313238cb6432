"""The exceptions that hpcfut raises, also under the names that Ray gives them."""

from hpcfut.model.errors import (
    ActorDiedError,
    ActorError,
    ActorUnavailableError,
    GetTimeoutError,
    HpcfutError,
    NotARefError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    OwnerDiedError,
    PendingCallsLimitExceededError,
    SessionEndedError,
    SpillError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from hpcfut.wire.exceptions import StandInError
from hpcfut.wire.pickling import UnloadableError, UnpicklableError

PendingCallsLimitExceeded = PendingCallsLimitExceededError
RayActorError = ActorError
RayError = HpcfutError
RayTaskError = TaskError

__all__ = [
    "ActorDiedError",
    "ActorError",
    "ActorUnavailableError",
    "GetTimeoutError",
    "HpcfutError",
    "NotARefError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PendingCallsLimitExceededError",
    "RayActorError",
    "RayError",
    "RayTaskError",
    "SessionEndedError",
    "SpillError",
    "StandInError",
    "TaskCancelledError",
    "TaskError",
    "TaskUnschedulableError",
    "UnloadableError",
    "UnpicklableError",
    "WorkerCrashedError",
]
