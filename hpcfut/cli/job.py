"""Runs one job from start to end: starts the launcher, watches ranks and signals, and leaves nothing behind."""

from __future__ import annotations

import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from hpcfut.cli.deaths import DeathWatch
from hpcfut.cli.janitor import Janitor
from hpcfut.cli.leftovers import Leftovers
from hpcfut.cli.stalls import Stalls
from hpcfut.cli.verdict import Death, Verdict, describe, judge, judge_survivor, read_complaint, read_lost_host
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.machine import make_scratch
from hpcfut.edges.host.parent import adopt_orphans, bury_orphans, die_with_parent
from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.standard_input import INPUT_VARIABLE
from hpcfut.model.roster import tell_survived

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
_TICK_S: Final = 0.1
#: How often the processes below the launcher are looked up.
_WATCH_S: Final = 2.0
#: A script may use this long for its last words after Ctrl-C; all must have ended within two seconds.
_INTERRUPT_GRACE_S: Final = 0.8
#: A launcher may use this long to end ranks by itself.
_TERMINATE_GRACE_S: Final = 0.3
#: A launcher may use this long to notice the death of a rank.
_DEATH_GRACE_S: Final = 1.5
#: Where ranks may die rank 0 leaves last; another one that is there so much later is suspended, say.
_LAST_GRACE_S: Final = 4.0
#: What still runs after the launcher has ended is asked to end, and killed after this time.
_LEFTOVER_GRACE_S: Final = 0.3
_NBYTES_COMPLAINT: Final = 1 << 16
#: As the `timeout` command has it.
TOO_LONG: Final = 124


class Job:
    """A job with its scratch folder; a context manager that cleans up."""

    def __init__(self, scratch_parent: Path) -> None:
        #: Signals that have come, the oldest first. A handler of ours is there before anything could be left behind,
        #: and until the last of it is gone: somebody impatient must not interrupt the cleaning.
        self.signals: list[int] = []
        self._is_interrupted = False
        self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        self.job_id = uuid.uuid4().hex
        self.host = socket.gethostname()
        self.files = JobFiles(make_scratch(scratch_parent))
        self.leftovers = Leftovers(self.job_id, self.files, self.host)
        self.janitor = Janitor(self.leftovers)
        adopt_orphans(True)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        self.leftovers.end_processes(0.0)
        self.leftovers.remove_files()
        self.janitor.dismiss()
        # All that is left of the job by now is what nobody has heard the end of.
        bury_orphans(())
        adopt_orphans(False)
        for number, handler in self._handlers.items():
            # After one Ctrl-C this process is about to exit, and another must not change its status.
            is_deaf = self._is_interrupted and number != signal.SIGCHLD
            signal.signal(number, signal.SIG_IGN if is_deaf else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._is_interrupted = True
            self.signals.append(number)

    def run(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        name: str,
        is_single: bool,
        survives: bool = False,
        limit_s: float = math.inf,
    ) -> int:
        """Run the job to its end, forwarding signals and output; returns its exit status.

        Args:
            command: What to start: a launcher, or the only rank itself.
            environ: The whole environment of the command.
            name: The launcher's name, for people.
            is_single: Whether the command is the only rank; then its own exit status is the job's.
            survives: Whether the job was started so that it may go on when a rank dies that is not rank 0.
            limit_s: The job is ended after this time.
        """
        with _Supervisor(self, command, environ, is_single=is_single, survives=survives) as supervisor:
            supervisor.watch(limit_s)
        verdict = supervisor.verdict(name)
        n_left = self.leftovers.end_processes(_LEFTOVER_GRACE_S if supervisor.interrupted_by is None else 0.0)
        _say(verdict.sentences)
        if n_left and not verdict.status:
            _say([f"{n_left} processes of the job were still running after its end, and were ended."])
        return verdict.status


def _say(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        sys.stderr.write(f"hpcfut: {sentence}\n")
    sys.stderr.flush()


class _Supervisor:
    """One running launcher and what to do about it."""

    def __init__(
        self, job: Job, command: Sequence[str], environ: Mapping[str, str], *, is_single: bool, survives: bool
    ) -> None:
        self._job = job
        self._is_single = is_single
        #: Whether the job may come to survive deaths, and whether it does: rank 0 says so when all ranks have met.
        self._may_survive, self._survives = survives, False
        #: When rank 0 was seen to have come to its end.
        self._left_at = math.inf
        #: Whether a death ends the job.
        self._is_lost = False
        #: Ranks whose deaths have been told while the job went on.
        self._told: dict[int, None] = {}
        #: What has been told of a host that the launcher has lost.
        self._lost_host = ""
        self._wake_reading, self._wake_writing = os.pipe()
        os.set_blocking(self._wake_writing, False)
        os.set_blocking(self._wake_reading, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wake_writing, warn_on_full_buffer=False)
        self.interrupted_by: int | None = None
        self._too_long_s = 0.0
        #: Whether the launcher ended because we ended it; its exit status says nothing then.
        self._is_forced = False
        self._plan: list[tuple[float, Callable[[], None]]] = []
        self._deaths = DeathWatch(job.files, job.host)
        self._stalls = Stalls(job.files)
        self._complaint = bytearray()
        # A session of its own, so that the terminal's Ctrl-C comes to us alone and reaches the script as one signal.
        # The launcher's stderr passes through our hands, because only there does it say which rank has died.
        self._process = subprocess.Popen(
            command,
            env=dict(environ),
            # The script reads what was given to us, and the launcher must not take it away.
            stdin=subprocess.DEVNULL if environ.get(INPUT_VARIABLE) else None,
            stderr=None if is_single else subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL if is_single else signal.SIGTERM),
        )
        self._deaths.launcher = self._process.pid if survives else 0

    def __enter__(self) -> _Supervisor:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wake_reading)
        os.close(self._wake_writing)
        self._deaths.close()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def watch(self, limit_s: float) -> None:
        """Return when the launcher has ended, by itself or by force."""
        deadline = time.monotonic() + limit_s
        next_watch = time.monotonic() + _TICK_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reading, selectors.EVENT_READ)
            if self._process.stderr is not None:
                os.set_blocking(self._process.stderr.fileno(), False)
                selector.register(self._process.stderr, selectors.EVENT_READ)
            while self._process.poll() is None:
                # What is planned is not put off by a tick: a busy machine takes its share of the two seconds as well.
                due_s = self._plan[0][0] - time.monotonic() if self._plan else _TICK_S
                for key, _ in selector.select(min(max(due_s, 0.0), _TICK_S)):
                    if key.fileobj is self._process.stderr and not self._forward():
                        selector.unregister(key.fileobj)
                self._drain_wakeups()
                bury_orphans((self._process.pid,))
                self._answer_signals()
                self._look_at_deaths()
                _say(self._stalls.look(self._deaths.notes))
                self._plan_after_deaths()
                now = time.monotonic()
                if now >= next_watch:
                    self._job.leftovers.watch(self._process.pid)
                    next_watch = now + _WATCH_S
                if now >= deadline and not self._too_long_s:
                    self._too_long_s = limit_s
                    self._plan = [(now, self._terminate), (now + _TERMINATE_GRACE_S, self._kill)]
                while self._plan and self._plan[0][0] <= now:
                    self._plan.pop(0)[1]()
        self._forward()
        self._look_at_deaths()

    def verdict(self, name: str) -> Verdict:
        """What became of the job."""
        returncode = 1 if self._is_forced else self._process.returncode
        if self.interrupted_by is not None:
            how = signal.Signals(self.interrupted_by).name
            return Verdict(128 + self.interrupted_by, (f"The job was ended by {how}.",))
        if self._too_long_s:
            return Verdict(TOO_LONG, (f"The job was ended because it took longer than {self._too_long_s:g} s.",))
        if self._is_single:
            if returncode >= 0:
                return Verdict(returncode)
            how = f"killed by signal {-returncode} ({signal.Signals(-returncode).name})"
            return Verdict(128 - returncode, (describe([Death(0, self._process.pid, self._job.host, how)]),))
        deaths, notes = self._deaths.first, self._deaths.notes
        if self._survives:
            status, lost = self._job.files.read_status(), self._lost_host
            return judge_survivor(returncode, status, self._deaths.all, lost, n_started=len(notes), launcher=name)
        told = read_complaint(self._complaint.decode(errors="replace"), notes)
        # The launcher knows how a rank died, and all about those of other hosts.
        if told is not None and self._is_news(told):
            deaths = [told]
        status = self._job.files.read_status()
        return judge(returncode, status, deaths, n_started=len(notes), launcher=name)

    def _is_news(self, told: Death) -> bool:
        """Whether what the launcher says of a death is true: it also names ranks that it killed itself."""
        files, first = self._job.files, self._deaths.first
        if files.has_ended(told.rank) or (files.was_aborted() and not first):
            return False
        return len(first) != 1 or first[0].rank == told.rank

    # -- signals -----------------------------------------------------------------------------------------------------

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wake_reading, 4096):
                pass

    def _answer_signals(self) -> None:
        while self._job.signals:
            number = self._job.signals.pop(0)
            now = time.monotonic()
            if self.interrupted_by is not None:
                self._plan = [(now, self._kill)]
                return
            self.interrupted_by = number
            grace_s = 0.0
            if number == signal.SIGINT and self._interrupt_script():
                # The script's `finally` clauses run before the launcher ends everything.
                grace_s = _INTERRUPT_GRACE_S
            self._plan = [(now + grace_s, self._terminate), (now + grace_s + _TERMINATE_GRACE_S, self._kill)]

    def _interrupt_script(self) -> bool:
        """Send Ctrl-C to rank 0; returns whether it is in reach."""
        for note in self._job.files.read_ranks():
            if note.rank == 0 and note.host == self._job.host and start_ticks(note.pid) == note.started:
                with suppress(ProcessLookupError):
                    os.kill(note.pid, signal.SIGINT)
                    return True
        if self._is_single:
            self._process.send_signal(signal.SIGINT)
        return self._is_single

    def _terminate(self) -> None:
        self._is_forced = True
        self._process.terminate()

    def _kill(self) -> None:
        self._is_forced = True
        self._job.leftovers.watch(self._process.pid)
        self._process.kill()
        self._job.leftovers.end_processes(0.0)

    # -- ranks -------------------------------------------------------------------------------------------------------

    def _look_at_deaths(self) -> None:
        self._deaths.look()
        if self._may_survive and not (self._survives or self._is_lost):
            self._survives = self._job.files.survives()
            if self._survives:
                self._deaths.launcher = 0
        self._tell_survived()

    def _tell_survived(self) -> None:
        """Say at once who has died, while the job goes on."""
        if not self._survives or 0 in self._deaths.all:
            return
        sentences = []
        for death in self._deaths.all.values():
            if death.rank not in self._told:
                self._told[death.rank] = None
                sentences.append(tell_survived(death.rank, death.pid, death.host))
        if not self._lost_host and (lost := read_lost_host(self._complaint.decode(errors="replace"))):
            self._lost_host = lost
            sentences.append(lost)
        _say(sentences)

    def _plan_after_deaths(self) -> None:
        """Where the launcher does not end the job by itself, end it after a while."""
        if self._plan or self._is_single:
            return
        # A child of a rank that keeps the rank's output open keeps the launcher waiting for it, without end.
        is_last = self._deaths.are_all_gone
        if self._survives and self._deaths.is_rank_0_gone:
            self._left_at = min(self._left_at, time.monotonic())
            is_last = is_last or time.monotonic() > self._left_at + _LAST_GRACE_S
        is_over = is_last and self._job.files.read_status() is not None
        is_fatal = (0 in self._deaths.all or bool(self._lost_host)) if self._survives else bool(self._deaths.first)
        self._is_lost = self._is_lost or is_fatal
        if is_fatal or is_over:
            now = time.monotonic() + _DEATH_GRACE_S
            self._plan = [(now, self._terminate), (now + _TERMINATE_GRACE_S, self._kill)]

    def _forward(self) -> bool:
        """Pass on what the launcher has printed; returns whether more may come."""
        stderr = self._process.stderr
        if stderr is None or stderr.closed:
            return False
        while True:
            try:
                data = os.read(stderr.fileno(), 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._complaint += data
            del self._complaint[:-_NBYTES_COMPLAINT]
            with suppress(OSError):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
