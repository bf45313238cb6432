"""Which GPUs a rank has. They are counted and named here, and touched by nobody.

A rank has those that ``CUDA_VISIBLE_DEVICES`` shows it, or else all of its host. What several ranks see is dealt out
among them, whole: a half would be of no use to a task that asks for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hpcfut.edges.host.machine import Place, ranks_on_machine_of

VISIBLE_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_DEVICE: Final = re.compile(r"nvidia\d+")


class Sight(msgspec.Struct, array_like=True, frozen=True):
    """The GPUs that a rank sees; all ranks tell each other at start."""

    #: As ``CUDA_VISIBLE_DEVICES`` names them.
    gpus: list[str]
    #: Whether nobody else sees them, whatever they are called: Slurm may show every rank one of its own, called 0.
    is_exclusive: bool = False


def own_sight(environ: Mapping[str, str], root: Path = Path("/")) -> Sight:
    """The GPUs that this process sees."""
    named = environ.get(VISIBLE_VARIABLE)
    if named is None:
        return Sight([str(number) for number in range(_n_of_host(root))])
    gpus = []
    for name in (name.strip() for name in named.split(",")):
        if not name or name == "-1" or name == "NoDevFiles":
            break  # What follows counts for nothing, as CUDA has it.
        gpus.append(name)
    return Sight(gpus, "SLURM_GPUS_PER_TASK" in environ)


def _n_of_host(root: Path) -> int:
    # A container may have the files of some devices only; a driver that nobody has used yet may have made none.
    files = [path for path in root.glob("dev/nvidia*") if _DEVICE.fullmatch(path.name)]
    return len(files) or len(list(root.glob("proc/driver/nvidia/gpus/*")))


def gpus_of(sights: Sequence[Sight], places: Sequence[Place], rank: int) -> list[str]:
    """The GPUs of a rank: each goes to the one, of those that see it, that has the fewest so far."""
    if sights[rank].is_exclusive:
        return sights[rank].gpus
    neighbours = [other for other in ranks_on_machine_of(places, rank) if not sights[other].is_exclusive]
    dealt: dict[int, list[str]] = {other: [] for other in neighbours}
    for gpu in dict.fromkeys(gpu for other in neighbours for gpu in sights[other].gpus):
        seers = [other for other in neighbours if gpu in sights[other].gpus]
        dealt[min(seers, key=lambda other: len(dealt[other]))].append(gpu)
    return dealt[rank]
