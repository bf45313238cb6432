"""Who is in the job, and whether they fit together: what ranks tell each other once, at start."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hpcfut.model.config import Config
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.model.variables import SETTINGS

#: So many ranks may come in place of others that have died: the doorbells of a host have room for them.
N_REPLACEMENTS_MAX: Final = 4096


class RankRecord(msgspec.Struct, array_like=True, frozen=True):
    """What every rank knows of another from the start."""

    rank: int
    incarnation: int
    #: Host name, for people.
    host: str
    #: Equal for ranks of one host only: host name, boot id and pid namespace.
    host_key: str
    pid: int
    #: Total amounts in units of ``RESOURCE_UNIT``, among them ``CPU``.
    resources: dict[str, int]
    #: Its GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; as many as its ``GPU``, unless the user says another number.
    gpus: tuple[str, ...] = ()
    #: Whether it is kept aside: it runs tasks only when another rank has died.
    is_spare: bool = False
    #: The rank of the start of the job whose place it has, because that and all others that had it are dead.
    replaces: int = -1

    @property
    def place(self) -> int:
        """The rank, of those of the start of the job, that it is or stands in for."""
        return self.rank if self.replaces < 0 else self.replaces


def with_resources(record: RankRecord, config: Config, incarnation: int) -> RankRecord:
    """The record with what the session's configuration gives each rank."""
    memory = record.resources["memory"]
    store = config.nbytes_store * RESOURCE_UNIT or memory * 3 // 10
    amounts = {"memory": memory - min(store, memory), "object_store_memory": store}
    given = {**config.resources, **config.resources_of_ranks.get(record.place, {})}
    resources = {**record.resources, **amounts, **given}
    return msgspec.structs.replace(record, resources=resources, incarnation=incarnation)


def tell_survived(rank: int, pid: int, host: str) -> str:
    """The sentence about a rank that has died in a job that goes on."""
    return f"Rank {rank} (process {pid} on host {host}) has died; the other ranks go on without it."


#: What a rank needs for its tasks, beside its objects.
_NBYTES_TASKS_MIN: Final = 32 << 20


def lack_of_memory(roster: Sequence[RankRecord], nbytes_store: int = 0) -> str:
    """The sentence for a host whose memory is too small for its ranks, each with this much of large objects.

    Whoever allocated more than there is would meet the OOM killer, which says nothing. Empty if there is enough.
    """
    for host_key in dict.fromkeys(record.host_key for record in roster):
        records = [record for record in roster if record.host_key == host_key]
        host, n_ranks = records[0].host, len(records)
        nbytes = sum(record.resources["memory"] for record in records) // RESOURCE_UNIT
        nbytes_most = nbytes // n_ranks - _NBYTES_TASKS_MIN
        has = f"{n_ranks} rank{'s' * (n_ranks > 1)} on host {host}, where the job has {nbytes} bytes of memory now"
        ask = "Ask for more memory, or start fewer ranks on a host; hpcfut doctor says what limits it."
        if nbytes_most < 0:
            return f"There is too little memory for {has}: a rank needs {_NBYTES_TASKS_MIN} for its tasks. {ask}"
        if nbytes_store > nbytes_most:
            return (
                f"object_store_memory={nbytes_store} is too much for {has}: together these stores take "
                f"{n_ranks * nbytes_store}, and a rank needs {_NBYTES_TASKS_MIN} for its tasks. Give at most "
                f"{nbytes_most}. {ask}"
            )
    return ""


class Outfit(msgspec.Struct, frozen=True):
    """What a rank brings with it that must be the same everywhere.

    It is the first thing that ranks tell each other, and a record whose fields go by names: ranks of different versions
    of hpcfut still understand it.
    """

    host: str
    #: Of hpcfut, Python, msgspec, the wire format and the MPI library.
    versions: dict[str, str]
    #: The environment variables that configure hpcfut, as far as they are set.
    settings: dict[str, str]

    @classmethod
    def of_this_process(cls, version: str, wire_version: int, library: str, environ: Mapping[str, str]) -> Outfit:
        """What this process brings; ``library`` is what MPI says about itself."""
        versions = {
            "hpcfut": version,
            "Python": platform.python_version(),
            "msgspec": msgspec.__version__,
            "the wire format": str(wire_version),
            # What follows the comma tells who built it, which may differ.
            "the MPI library": library.partition(",")[0],
        }
        return cls(socket.gethostname(), versions, {name: environ[name] for name in SETTINGS if name in environ})


def disagreement(outfits: Sequence[Outfit]) -> str:
    """The sentence that names the first rank that does not agree with rank 0; empty if all agree."""
    first = outfits[0]
    for rank, other in enumerate(outfits):
        who, whom = f"Rank {rank} on host {other.host}", f"rank 0 on host {first.host}"
        for name in {**first.versions, **other.versions}:
            ours, theirs = (outfit.versions.get(name, "of an unknown version") for outfit in (first, other))
            if theirs != ours:
                return (
                    f"{who} runs {name} {theirs}, but {whom} runs {name} {ours}. Start all ranks from the same "
                    f"environment."
                )
        for name in {**first.settings, **other.settings}:
            ours, theirs = (_setting(outfit, name) for outfit in (first, other))
            if theirs != ours:
                return (
                    f"{who} was started {theirs}, but {whom} {ours}. Give every rank the same variables: `hpcfut run` "
                    f"does, MPICH's mpiexec passes all of them on, and Open MPI's mpirun those named with -x."
                )
    return ""


def _setting(outfit: Outfit, name: str) -> str:
    return f"with {name}={outfit.settings[name]}" if name in outfit.settings else f"without {name}"
