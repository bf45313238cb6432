"""Who is in the job: one record a rank, exchanged once at start and checked for agreement."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


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
    #: Versions that must agree: hpcfut, Python, msgspec, wire format.
    versions: dict[str, str]
    #: Digest of the configuration.
    config_digest: str


def disagreement(records: Sequence[RankRecord]) -> str:
    """The sentence that names the first rank that does not agree with rank 0; empty if all agree."""
    first = records[0]
    for record in records[1:]:
        for name, version in first.versions.items():
            theirs = record.versions.get(name, "nothing")
            if theirs != version:
                return (
                    f"Rank {record.rank} on host {record.host} runs {name} {theirs}, but rank 0 on host {first.host} "
                    f"runs {name} {version}. Start all ranks from the same environment."
                )
        if record.config_digest != first.config_digest:
            return (
                f"Rank {record.rank} on host {record.host} was started with another configuration than rank 0 on host "
                f"{first.host}. Give every rank the same options and environment variables."
            )
    return ""
