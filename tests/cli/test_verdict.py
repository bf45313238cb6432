"""What `hpcfut run` exits with and says, from what is known of a job."""

from __future__ import annotations

import pytest

from hpcfut.cli.verdict import Death, Verdict, describe, judge, judge_survivor, read_complaint, read_lost_host
from hpcfut.edges.host.job_files import RankNote, Status
from hpcfut.model.roster import tell_survived

NOTES = [RankNote(rank, 100 + rank, 5000 + rank, "vm") for rank in range(3)]
KILLED = """
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 101 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------
"""
LEFT = """
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-24451@1,2]
   Exit code:    7
"""


def test_deaths_are_read_from_the_launchers_words() -> None:
    assert read_complaint(KILLED, NOTES) == Death(1, 101, "vm", "killed by signal 9 (Killed)")
    assert read_complaint(LEFT, NOTES) == Death(2, 102, "vm", "exit status 7")
    assert read_complaint("nothing of the kind", NOTES) is None
    # A rank of another host, of which there is no note.
    assert read_complaint(KILLED, []) == Death(1, 101, "vm", "killed by signal 9 (Killed)")
    assert read_complaint(LEFT, []) is None


def test_death_is_a_sentence() -> None:
    assert describe([Death(1, 101, "vm")]).startswith("Rank 1 (process 101 on host vm) died before the job had ended.")
    assert "its memory ran out" in describe([Death(1, 101, "vm", "killed by signal 9 (Killed)")])
    assert describe([Death(0, 100, "vm"), Death(2, 102, "vm")]).startswith("Ranks 0, 2 died")


@pytest.mark.parametrize(
    ("returncode", "status", "deaths", "expected"),
    [
        # Only what rank 0 left can mean success, and it goes before what the launcher says.
        (0, Status(0), [], 0),
        (0, Status(3), [], 3),
        (1, Status(0), [], 0),
        (14, Status(3), [], 3),
        (0, None, [], 1),
        (5, None, [], 5),
        # A death is a failure, whatever else there is.
        (0, Status(0), [Death(1, 101, "vm")], 1),
        (137, Status(0), [Death(1, 101, "vm")], 137),
        (137, Status(3), [Death(1, 101, "vm")], 3),
        (0, None, [Death(1, 101, "vm")], 1),
        (-9, None, [Death(1, 101, "vm")], 137),
    ],
)
def test_status(returncode: int, status: Status | None, deaths: list[Death], expected: int) -> None:
    assert judge(returncode, status, deaths, n_started=3, launcher="mpiexec").status == expected


def test_what_is_said() -> None:
    def said(returncode: int, status: Status | None, *deaths: Death, n_started: int = 3) -> tuple[str, ...]:
        return judge(returncode, status, deaths, n_started=n_started, launcher="mpiexec").sentences

    assert said(0, Status(0)) == ()
    assert said(0, Status(1, "Rank 2 is odd.")) == ("Rank 2 is odd.",)
    assert "before any rank had started" in said(213, None, n_started=0)[0]
    assert "without the exit status of the script" in said(0, None)[0]
    assert said(-9, None) == ("mpiexec was killed by signal 9, and the job with it.",)
    assert [text[:6] for text in said(1, Status(1, "First."), Death(1, 101, "vm"))] == ["First.", "Rank 1"]
    assert judge(0, Status(0), [], n_started=3, launcher="mpiexec") == Verdict(0)


LOST = """
--------------------------------------------------------------------------
PRTE has lost communication with a remote daemon.

  HNP daemon   : [prterun-h1-5@0,0] on node h1
  Remote daemon: [prterun-h1-5@0,1] on node h2

This is usually due to either a failure of the TCP network
connection to the node, or possibly an internal failure of
the daemon itself. We cannot recover from this failure, and
therefore will terminate the job.
--------------------------------------------------------------------------
"""
DIED = {1: Death(1, 101, "vm"), 2: Death(2, 102, "vm")}


@pytest.mark.parametrize(
    ("returncode", "status", "deaths", "expected"),
    [
        # What rank 0 left counts, and what the launcher says after a death does not.
        (14, Status(0), DIED, 0),
        (0, Status(7), DIED, 7),
        (14, Status(0), {}, 0),
        # The script has not come to its end.
        (0, None, DIED, 1),
        (0, Status(0), {0: Death(0, 100, "vm")}, 1),
        (0, None, {**DIED, 0: Death(0, 100, "vm")}, 1),
        (-9, Status(0), {}, 137),
    ],
)
def test_status_of_a_job_that_goes_on(
    returncode: int, status: Status | None, deaths: dict[int, Death], expected: int
) -> None:
    assert judge_survivor(returncode, status, deaths, "", n_started=3, launcher="mpiexec").status == expected


def test_what_is_said_of_a_job_that_goes_on() -> None:
    assert tell_survived(1, 101, "vm") == "Rank 1 (process 101 on host vm) has died; the other ranks go on without it."
    # It was said when it happened.
    assert judge_survivor(14, Status(0), DIED, "", n_started=3, launcher="mpiexec") == Verdict(0)
    said = judge_survivor(9, None, {**DIED, 0: Death(0, 100, "vm")}, "", n_started=3, launcher="mpiexec").sentences
    assert said[0].startswith("Rank 0 (process 100 on host vm) died before the job had ended.")
    assert said[1].startswith("Rank 0 runs the script")


def test_a_host_that_is_lost_with_its_launcher_is_a_sentence() -> None:
    sentence = read_lost_host(LOST)
    assert sentence.startswith("Host h2 is lost")
    assert read_lost_host(KILLED) == ""
    # Open MPI says 0 then, with ranks still running.
    assert judge_survivor(0, None, {}, sentence, n_started=3, launcher="mpiexec") == Verdict(1)
