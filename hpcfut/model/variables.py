"""The environment variables that steer a job, by their names.

What each means, where it is read; what `hpcfut run` sets, in ``cli/command.py``.
"""

from __future__ import annotations

from typing import Final

#: Cores of each rank.
CPUS_VARIABLE: Final = "HPCFUT_CPUS_PER_RANK"
#: Tasks that each rank runs at a time.
SLOTS_VARIABLE: Final = "HPCFUT_SLOTS"
#: Further resources, as a JSON object.
RESOURCES_VARIABLE: Final = "HPCFUT_RESOURCES"
#: Bytes of lineage that each rank keeps.
LINEAGE_VARIABLE: Final = "HPCFUT_LINEAGE_MEMORY"
#: Anything but ``0``: mistakes of user code are looked for that are expensive to find.
DEBUG_VARIABLE: Final = "HPCFUT_DEBUG"
#: Anything but ``0``: it is noted which line made each object.
SITES_VARIABLE: Final = "HPCFUT_RECORD_REF_CREATION_SITES"
#: How large objects travel between hosts.
ROUTE_VARIABLE: Final = "HPCFUT_ROUTE"
#: How ranks of one host read each other's objects: as between hosts, or in memory that MPI gives them together. If it
#: is not set, in each other's memory where they can map it, and in MPI's where they cannot.
ONE_HOST_VARIABLE: Final = "HPCFUT_ONE_HOST"
#: How many ranks, the last of the job, are kept aside until others have died.
SPARES_VARIABLE: Final = "HPCFUT_SPARES"
#: After so many seconds in which a rank answers nobody, that is told; ``0``: never.
STALL_VARIABLE: Final = "HPCFUT_STALL_S"
#: ``0``: nobody is started for a rank that has died.
RESPAWN_VARIABLE: Final = "HPCFUT_RESPAWN"
#: After so many seconds a constructor of an actor that has not returned is given up; ``0``: never.
ACTOR_START_VARIABLE: Final = "HPCFUT_ACTOR_START_S"
#: ``on``: the user said that the job must go on when a rank dies; `hpcfut run` tells it.
WISH_VARIABLE: Final = "HPCFUT_FAULT_TOLERANCE"

#: All ranks must see the same of these.
SETTINGS: Final = (
    CPUS_VARIABLE,
    SLOTS_VARIABLE,
    RESOURCES_VARIABLE,
    LINEAGE_VARIABLE,
    DEBUG_VARIABLE,
    SITES_VARIABLE,
    ROUTE_VARIABLE,
    ONE_HOST_VARIABLE,
    SPARES_VARIABLE,
    STALL_VARIABLE,
    RESPAWN_VARIABLE,
)

#: How Open MPI's TCP sends, and the one way in which it may where ranks may die. With any other, a thread that sends to
#: a rank which dies closes the connection in the middle of the send, meets its own lock and never returns, if several
#: threads may be inside MPI.
TCP_FLAGS_VARIABLE: Final = "OMPI_MCA_btl_tcp_flags"
TCP_FLAGS: Final = "send"
