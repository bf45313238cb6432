"""One object whose bytes a rank has at hand, or is about to have: its record and its life; see ``copies.py``."""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.model.failure import LOST, UNRECOVERABLE, Failure
from hpcfut.model.place import Place
from hpcfut.wire.messages import Argument

ABSENT: Final = "absent"
HELD_BACK: Final = "held back"
WRITING: Final = "writing"
DRAFT: Final = "draft"
QUEUED: Final = "queued"
READING: Final = "reading"
ABANDONED: Final = "abandoned"
ASKED: Final = "asked"
LENT: Final = "lent"
LOCAL: Final = "local"
SPILLED: Final = "spilled"
MISSING: Final = "missing"
DOOMED: Final = "doomed"
FREED: Final = "freed"

TRANSITIONS: Final = {
    (ABSENT, "write"): HELD_BACK,
    (HELD_BACK, "room"): WRITING,
    (HELD_BACK, "no room"): FREED,
    (HELD_BACK, "give up"): FREED,
    (WRITING, "seal"): LOCAL,
    (WRITING, "give up"): FREED,
    (WRITING, "give up while used"): DOOMED,
    (WRITING, "lay out"): DRAFT,
    (DRAFT, "take"): WRITING,
    (DRAFT, "free"): FREED,
    (ABSENT, "read"): QUEUED,
    (QUEUED, "room"): READING,
    (QUEUED, "no room"): MISSING,
    (QUEUED, "free"): FREED,
    (READING, "completed"): LOCAL,
    (READING, "failed"): MISSING,
    (READING, "free"): ABANDONED,
    (READING, "read elsewhere"): QUEUED,
    (READING, "ask"): ASKED,
    (ABANDONED, "read"): READING,
    (ABANDONED, "completed"): FREED,
    (ABANDONED, "keep"): LOCAL,
    (ABANDONED, "failed"): FREED,
    (ABSENT, "source"): SPILLED,
    (ABSENT, "ask"): ASKED,
    (ABSENT, "lent"): LENT,
    (ASKED, "lent"): LENT,
    (ASKED, "failed"): MISSING,
    (ASKED, "read elsewhere"): QUEUED,
    (ASKED, "free"): FREED,
    (LENT, "free"): FREED,
    (LENT, "recall"): ASKED,
    (MISSING, "free"): FREED,
    (MISSING, "retry"): SPILLED,
    (LOCAL, "evict"): FREED,
    (LOCAL, "unload"): SPILLED,
    (SPILLED, "read"): QUEUED,
    (SPILLED, "free"): FREED,
    (LOCAL, "free"): FREED,
    (LOCAL, "free while used"): DOOMED,
    (DOOMED, "want"): LOCAL,
    (DOOMED, "let go"): FREED,
}

#: The file of what is read from its source.
SOURCE_FILE: Final = -1


class Copy(msgspec.Struct, gc=False, eq=False):
    """The bytes of one object, as far as this rank has them at hand."""

    object_id: int
    state: str
    nbytes: int
    #: In whose arena the bytes are, or will be.
    rank: int
    #: Where in it; -1 while that is not known.
    offset: int = -1
    is_primary: bool = False
    #: Whether an object table of this rank (and not only a run) wants it.
    is_held: bool = False
    #: Runs here that have it as argument.
    n_pins: int = 0
    #: Whether other ranks are redirected to it, or it has a source, so that it stays when nobody here wants it.
    is_kept: bool = False
    #: Views of its bytes that values in user code of this rank are built over.
    n_views: int = 0
    #: Where it lies, while one of them is open for the runs that have it as argument.
    place: Place | None = None
    #: Transfers out of it that are under way.
    n_sends: int = 0
    #: Ranks of this host that read it in place, and how often it was lent to each.
    lent: dict[int, int] | None = None
    #: What they are told of it with tasks.
    argument: Argument | None = None
    #: How often it was lent to this rank.
    n_loans: int = 0
    #: Whether the holder has asked for its loans back.
    is_recalled: bool = False
    transfer_id: int = 0
    #: Who was said to hold the bytes that are read or lent here.
    holder: int = -1
    #: Whom they are asked of now: the holder, or the rank that it has redirected this one to.
    source: int = -1
    #: The holder: for each host whose ranks have asked, the one that reads for it (``readers.py``).
    readers: dict[str, int] | None = None
    #: The thread that is going to write it.
    waiter_id: int = 0
    #: The file that it has been spilled to, 0 for none.
    file_id: int = 0
    #: Whether its room there was given to others, so that its bytes are kept beside the arena (``spills.py``).
    is_displaced: bool = False
    #: How its bytes are read from their source, if they are.
    recipe: bytes | None = None
    #: Ranks that want the bytes as soon as they are here: (rank, transfer, or 0 for a loan).
    askers: list[tuple[int, int]] | None = None
    #: Runs (positive) and waiters (negative) to tell when it has arrived.
    watchers: dict[int, None] | None = None
    failure: Failure | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody here may want to use it."""
        return self.is_held or self.n_pins > 0 or self.is_kept

    @property
    def is_at_hand(self) -> bool:
        """Whether it can be read now, or it is known why it never will be."""
        return self.failure is not None if self.state == MISSING else self.state in (LOCAL, LENT) and self.offset >= 0

    @property
    def is_lost(self) -> bool:
        """Whether the bytes cannot be had from where they were stored, of which their owner is to be told."""
        kind = self.failure.kind if self.failure is not None and self.recipe is None else ""
        return self.state == MISSING and kind in (LOST, UNRECOVERABLE)

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was the primary copy, until the owner gave it up."""
        return self.holder < 0 and not self.is_primary

    @property
    def is_movable(self) -> bool:
        """Whether nobody here uses a local copy; what is lent is moved once its readers have heard of it."""
        return not (self.n_pins or self.n_views or self.n_sends or (self.is_recalled and self.lent))

    @property
    def is_used(self) -> bool:
        """Whether anybody reads its memory."""
        return bool(self.n_views or self.n_sends or self.lent)
