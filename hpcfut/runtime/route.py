"""By which route large objects travel: read out of the holder's memory, or sent by it; also on one host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcfut.model.variables import ONE_HOST_VARIABLE, ROUTE_VARIABLE

AS_BETWEEN_HOSTS: Final = "no"
IN_MEMORY_OF_MPI: Final = "mpi"
AUTO: Final = "auto"
RMA: Final = "rma"
TWO_SIDED: Final = "two-sided"

#: Where Linux shows hardware that reads the memory of other hosts.
_RDMA: Final = "/dev/infiniband"
#: What Open MPI's launcher tells ranks that are to survive deaths: a read from a dead rank would never end.
_FAULT_TOLERANCE: Final = "OMPI_MCA_mpi_ft_enable"


def trouble_with_route(environ: Mapping[str, str]) -> str:
    """The sentence that says what is wrong with the route that the user wants; empty if nothing is."""
    wanted = environ.get(ROUTE_VARIABLE, AUTO)
    if wanted not in (AUTO, RMA, TWO_SIDED):
        return f"{ROUTE_VARIABLE}={wanted} names no route. Set it to {RMA}, {TWO_SIDED} or {AUTO}, on all ranks."
    if wanted == RMA and is_fault_tolerant(environ):
        return (
            f"{ROUTE_VARIABLE}={RMA} has ranks read each other's memory through windows of MPI, and a read from a dead "
            f"rank never ends. Leave it out where ranks may die, or start the job with --fault-tolerance off."
        )
    one_host = environ.get(ONE_HOST_VARIABLE, "")
    if one_host not in ("", AS_BETWEEN_HOSTS, IN_MEMORY_OF_MPI):
        names = f"{IN_MEMORY_OF_MPI} or {AS_BETWEEN_HOSTS}"
        return f"{ONE_HOST_VARIABLE}={one_host} means nothing. Set it to {names} on all ranks, or leave it out."
    return ""


def has_means(environ: Mapping[str, str]) -> bool:
    """Whether this rank has the hardware to be read from, and need not survive deaths."""
    return os.path.isdir(_RDMA) and not is_fault_tolerant(environ)


def is_fault_tolerant(environ: Mapping[str, str]) -> bool:
    """Whether the launcher wants ranks to survive the death of others."""
    return environ.get(_FAULT_TOLERANCE, "0") not in ("", "0")


def is_one_sided(
    environ: Mapping[str, str],
    host_keys: Sequence[str],
    have_means: Callable[[], bool],
    reads_without_target: Callable[[int, int], bool],
) -> bool:
    """Whether objects are read, and not sent; equal on all ranks, which do this together.

    It is not chosen unless every rank has the means, and one has been seen to read from another host without its help.

    Args:
        environ: The variables of this rank, equal on all as far as they matter.
        host_keys: The host of each rank.
        have_means: Whether all ranks have them; collective.
        reads_without_target: Whether one rank reads from another that does not help; collective.
    """
    wanted = environ.get(ROUTE_VARIABLE, AUTO)
    if wanted != AUTO:
        return wanted == RMA
    far = next((rank for rank, key in enumerate(host_keys) if key != host_keys[0]), 0)
    return far > 0 and have_means() and reads_without_target(far, 0)
