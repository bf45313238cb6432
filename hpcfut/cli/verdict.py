"""What became of a job, from what the launcher said, what the ranks noted, and who died. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hpcfut.edges.host.job_files import RankNote, Status

#: A rank that was killed.
_SIGNALLED: Final = re.compile(
    r"process rank (\d+) with PID (\d+) on node (\S+) exited\s+on\s+signal (\d+)(?:\s+\(([^)]*)\))?"
)
#: A host whose launch daemon is gone.
_LOST_HOST: Final = re.compile(
    r"lost communication with a remote daemon\..*?Remote daemon: \S+ on node (\S+)", re.DOTALL
)
#: A rank that left with a status.
_EXITED: Final = re.compile(r"Process name: \[[^\]]*,(\d+)\]\s+Exit code:\s+(\d+)")


class Death(msgspec.Struct, frozen=True):
    """A rank that ended before its time."""

    rank: int
    pid: int
    host: str
    #: As "killed by signal 9 (Killed)"; empty if nobody knows.
    how: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The exit status of `hpcfut run` and what it says at the end."""

    status: int
    sentences: tuple[str, ...] = ()


def read_complaint(text: str, notes: Sequence[RankNote]) -> Death | None:
    """The first death in what Open MPI's launcher printed, if it names one.

    MPICH's names ranks that it killed itself.
    """
    by_rank = {note.rank: note for note in notes}
    if match := _SIGNALLED.search(text):
        rank, pid, host, number, name = match.groups()
        return Death(int(rank), int(pid), host, f"killed by signal {number}" + (f" ({name})" if name else ""))
    if match := _EXITED.search(text):
        note = by_rank.get(int(match[1]))
        if note is not None:
            return Death(note.rank, note.pid, note.host, f"exit status {match[2]}")
    return None


def describe(deaths: Sequence[Death]) -> str:
    """The sentence about the ranks that died first."""
    if len(deaths) == 1:
        (death,) = deaths
        how = f": {death.how}" if death.how else ""
        text = f"Rank {death.rank} (process {death.pid} on host {death.host}) died before the job had ended{how}."
        if "signal 9" in death.how:
            return f"{text} If nobody killed it, its memory ran out: give each rank more, or start fewer of them."
        return f"{text} What it printed last may tell why."
    ranks = ", ".join(str(death.rank) for death in deaths)
    return f"Ranks {ranks} died before the job had ended. What they printed last may tell why."


def read_lost_host(text: str) -> str:
    """The sentence about a host that the launcher has lost, if it says so: then it ends the whole job."""
    match = _LOST_HOST.search(text)
    if match is None:
        return ""
    return (
        f"Host {match[1]} is lost, or cannot be reached any more, and Open MPI 5 ends the whole job then. "
        f"Run it again, without that host if it is broken. Ranks that die one by one, or all of a host while the host "
        f"goes on, do not end a job."
    )


def judge_survivor(
    returncode: int,
    status: Status | None,
    deaths: Mapping[int, Death],
    lost_host: str,
    *,
    n_started: int,
    launcher: str,
) -> Verdict:
    """The same as ``judge`` for a job that goes on when ranks die; all these deaths have been told.

    Args:
        returncode: Of the launcher, worth nothing after a death unless it is negative.
        status: What rank 0 left; only this can mean success.
        deaths: By rank, those that ended without saying so.
        lost_host: What has been told of a host that the launcher has lost; empty if it has not.
        n_started: How many ranks have said that they started.
        launcher: Its name, for people.
    """
    if lost_host:
        return Verdict((status.status if status is not None else 0) or 1)
    if 0 in deaths and returncode >= 0:
        verdict = judge(returncode, status, [deaths[0]], n_started=n_started, launcher=launcher)
        return Verdict(verdict.status, (*verdict.sentences, "Rank 0 runs the script: no other rank can go on for it."))
    return judge(returncode, status, (), n_started=n_started, launcher=launcher)


def judge(returncode: int, status: Status | None, deaths: Sequence[Death], *, n_started: int, launcher: str) -> Verdict:
    """What `hpcfut run` says and exits with, after an end that nobody asked for by a signal.

    Args:
        returncode: Of the launcher; negative for a signal.
        status: What rank 0 left; only this can mean success.
        deaths: Ranks that ended without saying so, the first ones only.
        n_started: How many ranks have said that they started.
        launcher: Its name, for people.
    """
    failure = 128 - returncode if returncode < 0 else returncode
    if returncode < 0:
        # The ranks followed it into death.
        return Verdict(failure, (f"{launcher} was killed by signal {-returncode}, and the job with it.",))
    if deaths:
        told = (status.sentence,) if status is not None and status.sentence else ()
        return Verdict((status.status if status is not None else 0) or failure or 1, (*told, describe(deaths)))
    if status is not None:
        return Verdict(status.status, (status.sentence,) if status.sentence else ())
    if not n_started:
        what = f"{launcher} ended with status {failure} before any rank had started"
        return Verdict(failure or 1, (f"{what}. Its own words stand above; `hpcfut doctor` looks for the cause.",))
    what = f"The job ended without the exit status of the script, and {launcher} says {failure}"
    return Verdict(failure or 1, (f"{what}. It counts as failed; what the ranks printed last may tell why.",))
