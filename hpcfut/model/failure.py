"""Why a value will never exist. The core moves failures about; only the API turns them into exceptions."""

from __future__ import annotations

from typing import Final

import msgspec

#: User code raised; ``payload`` is the pickled error, ``text`` its traceback.
RAISED: Final = "raised"
#: The task was cancelled before it ended.
CANCELLED: Final = "cancelled"
#: No rank of the job can ever run the task.
UNSCHEDULABLE: Final = "unschedulable"
#: The generator has no further item.
ENDED: Final = "ended"
#: The object is not known to its owner any more, or its bytes cannot be had from where they were stored.
LOST: Final = "lost"
#: The object is lost, and its task cannot be run again.
UNRECOVERABLE: Final = "unrecoverable"
#: The rank that owned the object is dead.
OWNER_DIED: Final = "owner died"
#: The object store has no room for the value.
FULL: Final = "store full"
#: The process in which the code of an isolated task ran has ended.
CRASHED: Final = "crashed"
#: It was ended because it used more memory than the task had asked for.
OUT_OF_MEMORY: Final = "out of memory"
#: The actor is dead, and stays so.
ACTOR_DIED: Final = "actor died"
#: The actor died during the call, and lives again or is about to.
ACTOR_UNAVAILABLE: Final = "actor unavailable"
#: User code wants its actor to end; for the core alone.
ACTOR_EXITED: Final = "actor exited"
#: hpcfut could not carry the value (unpicklable result, wrong number of results …).
INTERNAL: Final = "internal"


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """A failed task or a lost object: the kind, a sentence for people, and perhaps the pickled exception."""

    kind: str
    text: str = ""
    payload: bytes = b""
