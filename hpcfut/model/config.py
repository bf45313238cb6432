"""The frozen configuration of a job; equal on all ranks, checked at start."""

from __future__ import annotations

from typing import Final

import msgspec

#: Where nobody says otherwise.
NBYTES_LINEAGE_MAX: Final = 1 << 28


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every number that steers the runtime, with its unit last."""

    #: Values up to this size travel inside messages and live with their owner.
    nbytes_inline_max: int = 100_000
    #: Most messages in one frame, so that a receiver can start before a long batch has been packed.
    n_messages_frame_max: int = 256
    #: Tasks run at a time on a rank, besides those blocked in ``get``.
    n_slots: int = 1
    #: A lease without work is returned after this time.
    lease_linger_s: float = 0.5
    #: The deepest queue that one lease may have on a rank.
    lease_depth_max: int = 256
    #: A lease is as deep as the tasks that a rank does in this time.
    lease_horizon_s: float = 0.016
    #: After this time of one task, the tasks queued behind it go back to their owners.
    hand_back_after_s: float = 0.02
    #: A driver that waits this long lends its rank to other owners.
    driver_lends_after_s: float = 0.001
    #: After this time of waiting with a resource in its hands a task is suspected to wait for others that need it.
    standstill_after_s: float = 0.5
    #: Threads of one rank that may be blocked in ``get`` at a time; beyond, waiters run what they wait for.
    n_blocked_max: int = 256
    #: Who waits for room while nothing at all can be moved away is told so after this time.
    store_full_after_s: float = 3.0
    #: Objects are spilled together in files of about this size.
    nbytes_spill_file: int = 64 << 20
    #: Running tasks are abandoned this long after the end of the script.
    stop_grace_s: float = 2.0
    #: Bytes of large objects that a rank may hold; 0 means a share of the memory that the job has.
    nbytes_store: int = 0
    #: Bytes of lineage that a rank keeps: the calls that could make lost objects again, and the values that these hold.
    #: Beyond, the oldest is dropped.
    nbytes_lineage_max: int = NBYTES_LINEAGE_MAX
    #: The folder that objects are spilled to on every host; empty for the nearest disk that each rank finds.
    spill_folder: str = ""
    #: Whether the job goes on when a rank other than rank 0 dies; else its death ends the job.
    survives_deaths: bool = False
    #: Replacements that may be started within a minute for ranks that have died; 0 for none at all.
    n_respawns_minute_max: int = 0
    #: Whether it is noted which line of user code made an object.
    notes_sites: bool = False
    #: Where names of actors are looked for, unless somebody says otherwise.
    namespace: str = ""
    #: Amounts of user-defined resources on every rank, in units of ``RESOURCE_UNIT``.
    resources: dict[str, int] = {}
    #: The same for single ranks, which have it instead.
    resources_of_ranks: dict[int, dict[str, int]] = {}
