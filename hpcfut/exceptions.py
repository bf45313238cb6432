"""The exceptions that hpcfut raises, also under the names that Ray gives them."""

from hpcfut.model.errors import (
    GetTimeoutError,
    HpcfutError,
    NotARefError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    OwnerDiedError,
    SessionEndedError,
    SpillError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from hpcfut.wire.exceptions import StandInError
from hpcfut.wire.pickling import UnloadableError, UnpicklableError

RayError = HpcfutError
RayTaskError = TaskError

__all__ = [
    "GetTimeoutError",
    "HpcfutError",
    "NotARefError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OutOfMemoryError",
    "OwnerDiedError",
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
