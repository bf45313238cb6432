"""A job, as one process sees it: its sessions, and its end.

A *job* is the life of the processes; a *session* lies between ``init`` and ``shutdown``. Rank 0 opens a session by a
frame to every other rank; between sessions these wait, asleep most of the time. A session ends on all ranks together:
each stops, lets its frames leave, and meets the others in a barrier.

In an SPMD job every rank runs the script. There the others wait inside ``init`` for the frame of rank 0, and a session
ends when the scripts of all ranks want it to. A rank takes tasks there even while its script computes: a script that
waits for another rank by a call of MPI would otherwise keep that from having its tasks done. So does rank 0 while it
shows a prompt.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from hpcfut.core.rank import RankCore
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.exits import Exits
from hpcfut.edges.host.fork_server import ForkServer
from hpcfut.edges.host.guard import RankGuard
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.machine import Cores
from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import FOLDER_VARIABLE, find_spill_folder
from hpcfut.edges.host.task_output import TaskOutput
from hpcfut.model.config import Config
from hpcfut.model.errors import RankLostError
from hpcfut.model.resources import unknown_rank
from hpcfut.model.roster import RankRecord, lack_of_memory, with_resources
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.ports import Doorbell, Transport
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.hearing import Hearing
from hpcfut.runtime.isolation import Isolation
from hpcfut.runtime.rank_watch import RankWatch
from hpcfut.runtime.recruiting import LAST_WITHIN_S, Recruiting
from hpcfut.runtime.runtime import Runtime
from hpcfut.wire.isolation import ChildStart, encode
from hpcfut.wire.sessions import EndHindered, JobClosed, SessionOpened, decode_session, encode_session, is_session

if TYPE_CHECKING:
    from hpcfut.edges.mpi.common_memory import MpiMemory
    from hpcfut.edges.mpi.start import World

#: How long a rank that waits for a session sleeps, if all others can ring it, and if not.
SLEEP_MAX_S, SLEEP_MAX_UNRUNG_S = 0.05, 0.002
#: A rank that has not come to the end of a session this long after its grace is given up.
CLOSE_WITHIN_S = 2.5
#: A program whose tasks kill their ranks wears out no more processes than this.
N_RESPAWNS_MINUTE_MAX = 30


class RefHooks(msgspec.Struct, frozen=True):
    """What the API tells the runtime about its refs."""

    ref_type: type
    id_of: Callable[[Any], int]
    make_ref: Callable[[int], Any]


class Job:
    """This process's part in the job."""

    def __init__(
        self,
        world: World | None,
        transport: Transport,
        doorbell: Doorbell,
        arena: HostArena,
        roster: list[RankRecord],
        cores: Cores,
        files: JobFiles | None,
        guard: RankGuard | None = None,
        expose: Callable[[memoryview], None] | None = None,
        common: MpiMemory | None = None,
        exits: Exits | None = None,
        recruiting: Recruiting | None = None,
    ) -> None:
        self._world = world
        self._files = files
        self._guard = guard
        #: Where objects are read out of the memory of their holders: makes that of a session readable, collectively.
        self._expose = expose
        #: For ranks that cannot map the memory of others of their host: that which they have together instead.
        self._common = common
        #: Only where the job survives deaths: makes others hear of it if this rank leaves in an unseemly way.
        self._exits = exits
        #: Where ranks that die are replaced by others.
        self._recruiting = recruiting
        #: Whether this rank has come for one that died; and whether it has not joined the session that went on.
        self._is_replacement = self._is_joining = False
        self._transport = transport
        self._doorbell = doorbell
        self._hearing = Hearing(doorbell)
        self._arena = arena
        self._roster = roster
        self._cores = cores
        self._n_sessions = 0
        self._output = TaskOutput(transport.rank)
        #: Of the session.
        self._isolation: Isolation
        #: Whether every rank runs the script.
        self.is_spmd = False
        self._watch = RankWatch(transport.rank, files, os.environ)
        if world is not None or files is not None:
            self._watch.start()
        #: Why ranks could not end a session together, if this rank knows.
        self.hindrance = ""
        #: Frames that came before a session was opened here; those of another one, or damaged, the session tells apart.
        self._early: list[tuple[int, bytes]] = []

    @property
    def rank(self) -> int:
        """The own rank."""
        return self._transport.rank

    @property
    def has_driver(self) -> bool:
        """Whether a script runs on this rank."""
        return self.is_spmd or self.rank == 0

    @property
    def n_ranks(self) -> int:
        """The number of ranks of the job."""
        return len(self._roster)

    @property
    def survives_deaths(self) -> bool:
        """Whether any rank but 0 may die, and the others go on; not if a script runs on it."""
        return self._exits is not None and not self.is_spmd

    @property
    def has_lost_rank_0(self) -> bool:
        """Whether nobody else will end the job."""
        return 0 in self._transport.deaths

    def trouble_with(self, config: Config) -> str:
        """The sentence that says why no session can have this configuration; empty if one can."""
        is_folder_chosen = config.spill_folder or os.environ.get(FOLDER_VARIABLE)
        return (
            unknown_rank(config.resources_of_ranks, self.n_ranks)
            or lack_of_memory(self._roster, config.nbytes_store)
            or (find_spill_folder(config.spill_folder, os.environ).trouble if is_folder_chosen else "")
        )

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, config: Config, hooks: RefHooks) -> Runtime:
        """Rank 0: begin a session on all ranks."""
        self._n_sessions += 1
        config = msgspec.structs.replace(
            config,
            survives_deaths=self.survives_deaths,
            n_respawns_minute_max=N_RESPAWNS_MINUTE_MAX if self.survives_deaths and self._recruiting is not None else 0,
        )
        record = self._opening(config)
        frame = encode_session(record)
        for rank in range(1, self.n_ranks):
            self._transport.send(rank, frame)
        return self._make_runtime(config, hooks)

    def _opening(self, config: Config) -> SessionOpened:
        opening = SessionOpened(self._n_sessions, config, list(sys.path), list(sys.argv))
        if self._recruiting is not None:
            opening.roster, opening.deaths = self._roster, dict(self._transport.deaths)
        return opening

    def join_session(self, opening: SessionOpened) -> None:
        """This rank has come for one that died: the session that it waits for is this one, which goes on."""
        self._is_replacement = self._is_joining = True
        self._early.append((0, encode_session(opening)))

    def await_session(self, hooks: RefHooks) -> Runtime | int:
        """Other ranks: sleep until rank 0 opens a session; returns the exit status if none will come."""
        doorbell, hearing, sleep_s = self._doorbell, self._hearing, 0.0
        while True:
            doorbell.lie_down()
            # A frame may have come while this rank was still leaving the last session.
            for _ in range(2):
                frames = self._transport.poll()
                hearing.note_look(len(frames))
                self._early += [(source, bytes(frame)) for source, frame in frames]
            if self.has_lost_rank_0:
                sys.stderr.write("hpcfut: Rank 0 died between two sessions, and nobody else begins one.\n")
                self.abort(1)
            opening = next((entry for entry in self._early if is_session(entry[1])), None)
            if opening is None:
                # A sleep that grows: what a ring was for may take a moment, and from other hosts none comes.
                is_rung = doorbell.sleep(sleep_s)
                hearing.note_sleep(sleep_s, is_rung=is_rung)
                sleep_max_s = SLEEP_MAX_S if doorbell.reaches_all else SLEEP_MAX_UNRUNG_S
                sleep_s = 0.0 if is_rung else min(2 * sleep_s + 0.00005, sleep_max_s)
                doorbell.get_up()
                continue
            doorbell.get_up()
            self._early.remove(opening)
            record = decode_session(*opening)
            if isinstance(record, JobClosed):
                return record.status
            assert isinstance(record, SessionOpened), "Only rank 0 is told that a session cannot be left."
            self._n_sessions = record.number
            if self._recruiting is not None:
                self._roster[:] = record.roster
                self._recruiting.declare_dead({} if self._is_joining else record.deaths)
            if not self.is_spmd:
                sys.argv[:] = record.argv
                sys.path[:] = record.path + [entry for entry in sys.path if entry not in record.path]
            return self._make_runtime(record.config, hooks)

    def _make_runtime(self, config: Config, hooks: RefHooks) -> Runtime:
        from hpcfut.edges.host.clock import MonotonicClock

        clock = MonotonicClock()
        roster = [with_resources(record, config, self._n_sessions) for record in self._roster]
        if self._n_sessions > 1 and not self._is_joining:
            self._arena = self._arena.renewed()
        nbytes_store = min(roster[self.rank].resources["object_store_memory"] // RESOURCE_UNIT, self._arena.nbytes)
        arena = self._arena if self._common is None else self._arena.in_common(self._common, nbytes_store)
        if self._expose is not None:
            self._expose(arena.memory(nbytes_store))
        core = RankCore(
            self.rank,
            roster,
            config,
            is_driver=self.rank == 0 and not (self.is_spmd or is_interactive()),
            nbytes_store=nbytes_store,
            neighbours=arena.neighbours,
            is_joining=self._is_joining,
        )
        self._is_joining = False
        engine = Engine(
            core,
            self._transport,
            arena,
            clock,
            self._hearing,
            session=self._n_sessions,
            may_spin=self._cores.are_enough,
            has_own_cores=self._cores.are_own,
            open_store=lambda: SpillFiles(find_spill_folder(config.spill_folder, os.environ)),
        )
        engine.frames.hear_first(self._early)
        self._early = []
        if self._recruiting is not None:
            self._recruiting.begin(engine, self._arena, self._opening(config))
        runtime = Runtime(engine, config, clock, self._n_sessions & 0x3F, *msgspec.structs.astuple(hooks))
        start = ChildStart(self.rank, list(sys.path), list(sys.argv), arena.guide(), config.nbytes_inline_max)

        def find(view: memoryview) -> tuple[int, int] | None:
            # A child that has not mapped the memory of a dead rank cannot do so any more: it is given the bytes.
            found = arena.find(view)
            return None if found is not None and found[0] in self._transport.deaths else found

        self._isolation = Isolation(runtime, lambda: ForkServer(encode(start), os.environ), find)
        self._watch.engine = engine
        executor = runtime.executor
        executor.on_marked_end = self._output.finish
        self._output.install(executor.task_of_thread, executor.mark, is_driver=self.has_driver)
        return runtime

    def close_session(self, runtime: Runtime) -> bool:
        """All ranks: leave a session that has ended; returns whether every rank came to its end in time."""
        end = runtime.engine.end
        assert end is not None
        reads_end_at = time.monotonic() + runtime.config.stop_grace_s
        # An abandoned task has a thread of its own, or this rank could not come here.
        runtime.executor.close()
        runtime.callbacks.close(runtime.config.stop_grace_s)
        if self._recruiting is not None and self.rank == 0:
            self._recruiting.close()
        runtime.sources.close(reads_end_at)
        runtime.helper.close()
        self._isolation.close()
        runtime.engine.close()
        self._watch.engine = None
        if self.has_driver:
            self._output.remove()
        if end.failure:
            return False
        # Rank 0 may have waited for a process that is being started.
        last_s = LAST_WITHIN_S if self._recruiting is not None else 0.0
        return self.meet(runtime.config.stop_grace_s + CLOSE_WITHIN_S + last_s)

    def is_unused(self, runtime: Runtime) -> bool:
        """Whether this rank has come for one that died, and the session has ended before it could join it."""
        return self.rank in runtime.engine.core.membership.joining

    def leave_unused(self) -> NoReturn:
        """Go away; nobody waits for this rank."""
        self._output.finish_all()
        if self._exits is not None:
            self._exits.allow()
        if self._files is not None:
            self._files.note_end(self.rank)
        if self._world is not None:
            self._world.say_goodbye()
        os._exit(0)

    def meet(self, within_s: float) -> bool:
        """Let all frames leave and meet the other ranks, while theirs are still received."""
        transport = self._transport
        deadline = time.monotonic() + within_s
        transport.start_barrier()
        try:
            while True:
                self._take_early(transport.poll())
                if transport.is_barrier_done():
                    self.hindrance = ""
                    return True
                if time.monotonic() > deadline:
                    return False
                # MPI tells of the end of a barrier only to who asks, and moves what is under way only for who does.
                time.sleep(0.0 if transport.is_busy else 0.0001)
        except RankLostError as error:
            self.hindrance = str(error)
            return False

    def _take_early(self, frames: Sequence[tuple[int, bytes | bytearray | memoryview]]) -> None:
        """Keep what belongs to the next session, and note what is said about the end of this one."""
        for source, frame in frames:
            record = decode_session(source, frame) if is_session(frame) else None
            if isinstance(record, EndHindered):
                self.hindrance = self.hindrance or record.sentence
            else:
                self._early.append((source, bytes(frame)))

    # -- the end -----------------------------------------------------------------------------------------------------

    def exit_status(self, status: int) -> int:
        """What to exit with: 0 where `hpcfut run` carries the status; launchers complain at length of any other."""
        return 0 if self._files is not None and self._world is not None else status

    def leave(self, status: int) -> None:
        """End this process's part in an orderly way; after the last session, on all ranks together."""
        self._watch.rest()
        if self.rank == 0:
            frame = encode_session(JobClosed(status))
            for rank in range(1, self.n_ranks):
                self._transport.send(rank, frame)
        if not self.meet(CLOSE_WITHIN_S):
            if self.hindrance:
                sys.stderr.write(f"hpcfut: {self.hindrance}\n")
            self.abort(status or 1)
        self._output.remove()
        if self._exits is not None:
            self._exits.allow()
        if self._files is not None:
            self._files.note_end(self.rank)
        if self._world is not None:
            if self._common is not None:
                self._common.close()
            self._transport.close()
            # Where ranks may die they leave MPI as it is (``edges/mpi/surviving.py``).
            if self._exits is None:
                self._world.finalize()
            elif self._is_replacement:
                self._world.say_goodbye()
        if self._guard is not None:
            self._guard.dismiss()

    def note_status(self, status: int, sentence: str = "") -> None:
        """Leave the exit status of the script for `hpcfut run`; from ranks without one it does not want any."""
        if self._files is not None and self.has_driver:
            self._files.write_status(status, sentence)

    def abort(self, status: int) -> None:
        """End the whole job at once; does not return."""
        self._watch.rest()
        self._output.finish_all()
        sys.stdout.flush()
        sys.stderr.flush()
        if self._exits is not None:
            self._exits.allow()
        if self._files is not None:
            self._files.note_abort()
            self._files.note_end(self.rank)
        if self._guard is not None:
            self._guard.dismiss()
        # Where a rank has died, the launcher of Open MPI may never end if two others abort; so the lowest alone does.
        dead = self._transport.deaths
        if self._world is not None and (not dead or all(rank in dead for rank in range(self.rank))):
            self._world.abort(status)
        os._exit(status)


def is_interactive() -> bool:
    """Whether somebody types the script line by line, now or when it has ended."""
    return bool(sys.flags.interactive) or not hasattr(sys.modules["__main__"], "__file__")


def is_typed() -> bool:
    """Whether this code comes from the standard input."""
    return is_interactive() and sys.argv[:1] in ([], [""], ["-"])
