"""The composition root: it puts a process together out of edges, and a session out of a core and a runtime.

A *job* is the life of the processes; a *session* lies between ``init`` and ``shutdown``. All ranks meet once, when the
job starts. Rank 0 then opens sessions by a frame to every other rank; between sessions these wait, asleep most of the
time. A session ends on all ranks together: each stops, lets its frames leave, and meets the others in a barrier.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from hpcfut.core.rank import RankCore
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.guard import RankGuard
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.machine import (
    Place,
    cores_of,
    limit_threads,
    nbytes_of_job_on_host,
    own_place,
    ranks_on_host_of,
)
from hpcfut.edges.host.parent import ParentWatch, die_with_parent
from hpcfut.edges.host.segments import StartSegments
from hpcfut.edges.host.task_output import TaskOutput
from hpcfut.edges.host.timers import sharpen_timers
from hpcfut.model.config import Config
from hpcfut.model.errors import HpcfutError
from hpcfut.model.roster import Outfit, RankRecord, disagreement
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.ports import Doorbell, Transport
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.runtime import Runtime
from hpcfut.version import __version__
from hpcfut.wire.codec import WIRE_VERSION, session_of
from hpcfut.wire.sessions import JobClosed, SessionOpened, decode_session, encode_session, is_session

if TYPE_CHECKING:
    from hpcfut.edges.host.launch_environment import Launch
    from hpcfut.edges.mpi.start import World

#: How long a rank that waits for a session sleeps, if all others can ring it, and if not.
SLEEP_MAX_S, SLEEP_MAX_UNRUNG_S = 0.05, 0.002
PARENT_CHECK_S = 0.5
#: A rank that has not come to the end of a session this long after its grace is given up.
CLOSE_WITHIN_S = 2.5
#: So long a rank leaves it to rank 0 to say why the job cannot start.
REFUSED_WITHIN_S = 4.0


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
        roster: list[RankRecord],
        n_on_host: int,
        files: JobFiles | None,
        guard: RankGuard | None = None,
    ) -> None:
        self._world = world
        self._files = files
        self._guard = guard
        self._transport = transport
        self._doorbell = doorbell
        self._roster = roster
        self._may_spin = n_on_host <= _n_cores()
        self._n_sessions = 0
        self._output = TaskOutput(transport.rank)
        if world is not None:
            watch = ParentWatch()
            threading.Thread(target=_watch_parent, args=(watch,), name="hpcfut-parent-watch", daemon=True).start()
        #: Frames that came before their session was opened here.
        self._early: list[tuple[int, bytes]] = []

    @property
    def rank(self) -> int:
        """The own rank."""
        return self._transport.rank

    @property
    def n_ranks(self) -> int:
        """The number of ranks of the job."""
        return len(self._roster)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, config: Config, hooks: RefHooks) -> Runtime:
        """Rank 0: begin a session on all ranks."""
        self._n_sessions += 1
        record = SessionOpened(self._n_sessions, config, list(sys.path), list(sys.argv))
        frame = encode_session(record)
        for rank in range(1, self.n_ranks):
            self._transport.send(rank, frame)
        return self._make_runtime(config, hooks)

    def await_session(self, hooks: RefHooks) -> Runtime | int:
        """Other ranks: sleep until rank 0 opens a session; returns the exit status if none will come."""
        doorbell, sleep_s = self._doorbell, 0.0
        sleep_max_s = SLEEP_MAX_S if doorbell.reaches_all else SLEEP_MAX_UNRUNG_S
        while True:
            doorbell.lie_down()
            # A frame may have come while this rank was still leaving the last session.
            for _ in range(2):
                self._early += [(source, bytes(frame)) for source, frame in self._transport.poll()]
            opening = next((entry for entry in self._early if is_session(entry[1])), None)
            if opening is None:
                # A sleep that grows: what a ring was for may take a moment, and from other hosts none comes.
                sleep_s = 0.0 if doorbell.sleep(sleep_s) else min(2 * sleep_s + 0.00005, sleep_max_s)
                doorbell.get_up()
                continue
            doorbell.get_up()
            self._early.remove(opening)
            record = decode_session(*opening)
            if isinstance(record, JobClosed):
                return record.status
            self._n_sessions = record.number
            sys.argv[:] = record.argv
            sys.path[:] = record.path + [entry for entry in sys.path if entry not in record.path]
            return self._make_runtime(record.config, hooks)

    def _make_runtime(self, config: Config, hooks: RefHooks) -> Runtime:
        from hpcfut.edges.host.clock import MonotonicClock
        from hpcfut.edges.host.heap_window import HeapWindow

        clock = MonotonicClock()
        roster = [_with_resources(record, config, self._n_sessions) for record in self._roster]
        core = RankCore(self.rank, roster, config, is_driver=self.rank == 0)
        window = HeapWindow(roster[self.rank].resources["object_store_memory"] // RESOURCE_UNIT)
        engine = Engine(
            core,
            self._transport,
            window,
            clock,
            self._doorbell,
            session=self._n_sessions,
            may_spin=self._may_spin,
        )
        number = self._n_sessions & 0xFF
        engine.frames.hear_first([(source, frame) for source, frame in self._early if session_of(frame) == number])
        self._early = []
        runtime = Runtime(engine, roster, config, clock, self._n_sessions & 0x3F, *msgspec.structs.astuple(hooks))
        executor = runtime.executor
        executor.on_marked_end = self._output.finish
        self._output.install(executor.task_of_thread, executor.mark, is_driver=self.rank == 0)
        return runtime

    def close_session(self, runtime: Runtime) -> bool:
        """All ranks: leave a session that has ended; returns whether every rank came to its end in time."""
        end = runtime.engine.end
        assert end is not None
        # An abandoned task has a thread of its own, or this rank could not come here.
        runtime.executor.interruption.wait_until_wound_down()
        runtime.callbacks.close(runtime.config.stop_grace_s)
        runtime.helper.close()
        runtime.engine.close()
        if self.rank == 0:
            self._output.remove()
        if end.failure:
            return False
        return self._meet(runtime.config.stop_grace_s + CLOSE_WITHIN_S)

    def _meet(self, within_s: float) -> bool:
        """Let all frames leave and meet the other ranks, while theirs are still received."""
        transport = self._transport
        deadline = time.monotonic() + within_s
        is_started = False
        while True:
            for source, frame in transport.poll():
                self._early.append((source, bytes(frame)))
            if transport.completed_data():
                continue
            if not is_started and not transport.is_busy:
                transport.start_barrier()
                is_started = True
            if is_started and transport.is_barrier_done():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0001)  # MPI tells of the end of a barrier only to who asks.

    # -- the end -----------------------------------------------------------------------------------------------------

    def leave(self, status: int) -> int:
        """End this process's part in an orderly way; after the last session, on all ranks together.

        Returns:
            The status to exit with: 0 where `hpcfut run` carries it, because launchers complain at length about others.
        """
        if self.rank == 0:
            frame = encode_session(JobClosed(status))
            for rank in range(1, self.n_ranks):
                self._transport.send(rank, frame)
        if not self._meet(CLOSE_WITHIN_S):
            self.abort(status or 1)
        self._output.remove()
        if self._files is not None:
            self._files.note_end(self.rank)
        if self._world is not None:
            self._transport.close()
            self._world.finalize()
        if self._guard is not None:
            self._guard.dismiss()
        return 0 if self._files is not None and self._world is not None else status

    def note_status(self, status: int, sentence: str = "") -> None:
        """Rank 0: leave the exit status of the script for `hpcfut run`."""
        if self._files is not None and self.rank == 0:
            self._files.write_status(status, sentence)

    def abort(self, status: int) -> None:
        """End the whole job at once; does not return."""
        self._output.finish_all()
        sys.stdout.flush()
        sys.stderr.flush()
        if self._files is not None:
            self._files.note_abort()
            self._files.note_end(self.rank)
        if self._guard is not None:
            self._guard.dismiss()
        if self._world is not None:
            self._world.abort(status)
        os._exit(status)


def start_job(environ: MutableMapping[str, str]) -> Job:
    """Meet the other ranks, if a launcher started several; collective then.

    Raises:
        HpcfutError: The ranks do not fit together, or were started wrongly; the sentence says what to do.
    """
    from hpcfut.edges.host.launch_environment import recognise_launch
    from hpcfut.edges.host.standard_input import take_input

    launch = recognise_launch(environ)
    files = JobFiles.of_environment(environ)
    if files is not None:
        files.note_start(launch.rank)
        if launch.rank == 0:
            take_input(environ)
    if launch.n_ranks != 1:
        die_with_parent()
        sharpen_timers()
    elif "mpi4py.MPI" not in sys.modules or not _has_user_started_mpi():
        return _start_alone(environ, files)
    return _start_ranks(launch, environ, files)


def _has_user_started_mpi() -> bool:
    from hpcfut.edges.mpi.start import is_started_by_user

    return is_started_by_user()


def _start_ranks(launch: Launch, environ: MutableMapping[str, str], files: JobFiles | None) -> Job:
    from hpcfut.edges.host.launch_environment import mismatch, recognise_library, singletons
    from hpcfut.edges.mpi.start import library_version, start_mpi
    from hpcfut.edges.mpi.transport import MpiTransport

    version = library_version()
    library = recognise_library(version)
    _refuse_unmet(mismatch(launch, library), launch, environ, files)
    guard = None
    if files is None and not _has_user_started_mpi():
        guard = RankGuard.of_launch(launch, environ, is_interactive=_is_interactive())
    world = start_mpi()
    outfits = world.gather_records(Outfit.of_this_process(__version__, WIRE_VERSION, version, environ))
    _refuse(disagreement(outfits), launch, files, world, guard)
    places = world.gather_records(own_place())
    neighbours = ranks_on_host_of(places, world.rank)
    segments = StartSegments()
    digests = world.gather(segments.digest)
    segments.unname([digests[rank] for rank in neighbours])
    _refuse(singletons(launch, library, world.n_ranks), launch, files, world, guard)
    cores = int(environ.get("HPCFUT_CPUS_PER_RANK") or 0) or cores_of(places, world.rank)
    limit_threads(cores, environ)
    nbytes = nbytes_of_job_on_host(environ) // len(neighbours)
    roster = world.gather_records(_own_record(world.rank, cores, nbytes, places[world.rank]))
    doorbell = HostDoorbell.among(neighbours, world.rank, world.n_ranks, world.gather)
    transport = MpiTransport(world.comm, doorbell)
    if files is not None:
        files.note_segments(world.rank)
    return Job(world, transport, doorbell, roster, len(neighbours), files, guard)


def _start_alone(environ: MutableMapping[str, str], files: JobFiles | None) -> Job:
    from hpcfut.edges.host.loopback import LoopbackTransport

    place = own_place()
    cores = int(environ.get("HPCFUT_CPUS_PER_RANK") or 0) or cores_of([place], 0)
    limit_threads(cores, environ)
    record = _own_record(0, cores, nbytes_of_job_on_host(environ), place)
    return Job(None, LoopbackTransport(), HostDoorbell(0, 1), [record], 1, files)


def _watch_parent(watch: ParentWatch) -> None:
    """A rank whose launcher is gone has nobody left to end it."""
    while not watch.is_orphaned():
        time.sleep(PARENT_CHECK_S)  # Beside the kernel's signal, which some containers swallow.
    os._exit(1)


def _refuse_unmet(sentence: str, launch: Launch, environ: Mapping[str, str], files: JobFiles | None) -> None:
    """End the job before this rank has met any other, if there is a sentence that says why.

    Where the same holds on all ranks, rank 0 says it once for all, and its failure ends the job meanwhile. Where it
    does not, the first rank that it holds for does both, because the others wait for it inside MPI.
    """
    if not sentence:
        return
    if launch.rank != 0:
        if launch.launcher == "slurm":
            sys.exit(0)  # The environment says it to all, and srun ends nobody because another one failed.
        # The launcher ends this rank meanwhile, if one before it has spoken.
        time.sleep(REFUSED_WITHIN_S + min(launch.rank, 10))
    if files is not None:
        files.note_end(launch.rank)
        files.write_status(1)
    RankGuard.of_misfit(launch, environ)
    raise HpcfutError(sentence)


def _refuse(sentence: str, launch: Launch, files: JobFiles | None, world: World, guard: RankGuard | None) -> None:
    """End the job before it has begun, if there is a sentence that says why; on all ranks alike."""
    if not sentence:
        return
    world.finalize()
    if guard is not None:
        guard.dismiss()
    if files is not None:
        files.note_end(launch.rank)
    if launch.rank != 0:
        sys.exit(0)  # Rank 0 says it once for all, and fails; a failure here could end the job before.
    if files is not None:
        files.write_status(1)
    raise HpcfutError(sentence)


def _is_interactive() -> bool:
    """Whether somebody types the script line by line, now or when it has ended."""
    return bool(sys.flags.interactive) or not hasattr(sys.modules["__main__"], "__file__")


def _own_record(rank: int, cores: int, nbytes_memory: int, place: Place) -> RankRecord:
    return RankRecord(
        rank,
        0,
        place.host,
        place.host_key,
        os.getpid(),
        {"CPU": cores * RESOURCE_UNIT, "memory": nbytes_memory * RESOURCE_UNIT},
    )


def _with_resources(record: RankRecord, config: Config, incarnation: int) -> RankRecord:
    """The record with what the session's configuration gives each rank."""
    memory = record.resources["memory"]
    store = config.nbytes_store * RESOURCE_UNIT or memory * 3 // 10
    amounts = {"memory": memory - min(store, memory), "object_store_memory": store}
    given = {**config.resources, **config.resources_of_ranks.get(record.rank, {})}
    resources = {**record.resources, **amounts, **given}
    return msgspec.structs.replace(record, resources=resources, incarnation=incarnation)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0))
