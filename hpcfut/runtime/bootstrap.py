"""The composition root, with ``job.py``: it puts a process together out of edges.

All ranks meet once, when the job starts: they see whether they fit together, and tell each other what they have.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hpcfut.edges.host.apart import settle_mpi
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.event_queues import event_queues
from hpcfut.edges.host.exits import Exits
from hpcfut.edges.host.gpus import gpus_of, own_sight
from hpcfut.edges.host.guard import RankGuard
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.machine import (
    Cores,
    Place,
    cores_of,
    limit_threads,
    own_place,
    ranks_on_host_of,
    ranks_on_machine_of,
    shared_memory_key,
    sharing_of,
)
from hpcfut.edges.host.memory import memory_of_job
from hpcfut.edges.host.parent import die_with_parent
from hpcfut.edges.host.segments import StartSegments
from hpcfut.edges.host.timers import sharpen_timers
from hpcfut.model.errors import HpcfutError
from hpcfut.model.roster import Outfit, RankRecord, disagreement, lack_of_memory
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.model.variables import (
    CPUS_VARIABLE,
    DEBUG_VARIABLE,
    ONE_HOST_VARIABLE,
    RESPAWN_VARIABLE,
    TCP_FLAGS,
    TCP_FLAGS_VARIABLE,
)
from hpcfut.ports import Transport
from hpcfut.runtime.job import Job, is_interactive, is_typed
from hpcfut.runtime.rank_watch import stall_s_of
from hpcfut.runtime.recruiting import Recruiting
from hpcfut.runtime.route import (
    AS_BETWEEN_HOSTS,
    IN_MEMORY_OF_MPI,
    has_means,
    is_fault_tolerant,
    is_one_sided,
    trouble_with_route,
)
from hpcfut.runtime.spares import denial, is_demanded, n_spares_of, trouble_with_spares
from hpcfut.runtime.spawning import say_number
from hpcfut.runtime.start_watch import MPI_WITHIN_S, StartWatch
from hpcfut.version import __version__
from hpcfut.wire.codec import WIRE_VERSION
from hpcfut.wire.sessions import Arrival, Invitation

if TYPE_CHECKING:
    from hpcfut.edges.host.launch_environment import Launch
    from hpcfut.edges.mpi.common_memory import MpiMemory
    from hpcfut.edges.mpi.start import World
    from hpcfut.edges.mpi.transport import MpiTransport

#: So long a rank leaves it to rank 0 to say why the job cannot start.
REFUSED_WITHIN_S = 4.0


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
        try:
            files.note_start(launch.rank)
        except OSError as error:
            # The other ranks may be able to, and then wait for this one inside MPI.
            trouble = f"{files.scratch}, where `hpcfut run` looks for the notes of the job: {error.strerror}."
            advice = "Make room there, or set TMPDIR to a folder with more."
            _refuse_unmet(f"Rank {launch.rank} cannot write to {trouble} {advice}", launch, environ, None)
        if launch.rank == 0:
            take_input(environ)
    if launch.n_ranks != 1:
        _refuse_typed(launch)
        die_with_parent()
        sharpen_timers()
    elif "mpi4py.MPI" not in sys.modules or not _has_user_started_mpi():
        return _start_alone(environ, files)
    with StartWatch(launch.rank) as watch:
        job = _start_ranks(launch, environ, files, watch)
        if job.survives_deaths:
            _begin(job, files)
    return job


def _begin(job: Job, files: JobFiles | None) -> None:
    """Let the job survive deaths from here on, because no rank is inside a collective of MPI any more."""
    if not job.meet(MPI_WITHIN_S):
        raise HpcfutError(job.hindrance or f"Not all ranks have met within {MPI_WITHIN_S:g} s of the start of MPI.")
    if files is not None and job.rank == 0:
        files.note_survival()


def _has_user_started_mpi() -> bool:
    from hpcfut.edges.mpi.start import is_started_by_user

    return is_started_by_user()


def _start_ranks(launch: Launch, environ: MutableMapping[str, str], files: JobFiles | None, watch: StartWatch) -> Job:
    from hpcfut.edges.host.launch_environment import mismatch, recognise_library, singletons
    from hpcfut.edges.mpi.deaths import dead_at_start, end_start
    from hpcfut.edges.mpi.fabric import reads_without_target
    from hpcfut.edges.mpi.start import library_version, start_mpi
    from hpcfut.edges.mpi.surviving import SurvivingTransport
    from hpcfut.edges.mpi.transport import MpiTransport

    version = library_version()
    library = recognise_library(version)
    _refuse_unmet(mismatch(launch, library), launch, environ, files)
    guard = None
    if files is None and not _has_user_started_mpi():
        guard = RankGuard.of_launch(launch, environ, is_interactive=is_interactive())
    settle_mpi(launch, environ)
    if is_fault_tolerant(environ):
        if not _has_user_started_mpi():
            environ.setdefault(TCP_FLAGS_VARIABLE, TCP_FLAGS)
        watch.start(dead_at_start, end_start)
    world = start_mpi()
    world.before_end = watch.stop
    outfits = world.gather_records(Outfit.of_this_process(__version__, WIRE_VERSION, version, environ))
    _refuse(disagreement(outfits) or _trouble_with(environ, world), launch, files, world, guard)
    survives_deaths, trouble = _settle_deaths(environ, world, version)
    _refuse(trouble, launch, files, world, guard)
    places = world.gather_records(own_place())
    place, neighbours = places[world.rank], ranks_on_host_of(places, world.rank)
    segments = StartSegments()
    digests = world.gather(segments.digest)
    on_machine = ranks_on_machine_of(places, world.rank)
    segments.unname([digests[rank] for rank in on_machine])
    _refuse(singletons(launch, library, world.n_ranks), launch, files, world, guard)
    cores = int(environ.get(CPUS_VARIABLE) or 0) or cores_of(places, world.rank)
    limit_threads(cores, environ)
    sharing = sharing_of(places, world.rank)
    nbytes = memory_of_job(environ).nbytes_free // len(on_machine)
    gpus = gpus_of(world.gather_records(own_sight(environ)), places, world.rank)
    doorbell = HostDoorbell.among(neighbours, world.rank, world.n_ranks, world.gather)
    must_survive = survives_deaths and is_demanded(environ)
    arena, common = _share_memory(world, neighbours, nbytes, environ, must_survive=must_survive)
    # Ranks make memory in common together, for each session anew, and one that is dead would be missed.
    survives_deaths = survives_deaths and b"1" not in world.gather(b"%d" % (common is not None))
    if common is not None:
        # Who reads objects in place is of one host to the core, too.
        place = msgspec.structs.replace(place, host_key=f"{place.machine_key} {min(common.ranks)}")
    is_spare = world.rank >= world.n_ranks - n_spares_of(environ)
    roster = world.gather_records(_own_record(world.rank, cores, nbytes, place, gpus, is_spare=is_spare))
    _refuse(lack_of_memory(roster), launch, files, world, guard)
    is_read = is_one_sided(
        environ,
        [record.host_key for record in roster],
        lambda: b"0" not in world.gather(b"%d" % has_means(environ)),
        lambda reader, target: reads_without_target(world, reader, target),
    )
    if survives_deaths:
        base: MpiTransport = SurvivingTransport(world.comm, doorbell)
    else:
        base = MpiTransport(world.comm, doorbell, is_one_sided=is_read)
    if not doorbell.reaches_all:
        doorbell.hear(event_queues())
    if files is not None:
        files.note_segments(world.rank)
    expose = base.expose if is_read else None
    on = _going_on(base, doorbell, arena, roster, environ)
    return Job(world, on.transport, doorbell, arena, roster, sharing, files, guard, expose, common, *on[1:])


def _share_memory(
    world: World, neighbours: list[int], nbytes: int, environ: Mapping[str, str], *, must_survive: bool
) -> tuple[HostArena, MpiMemory | None]:
    """Let the ranks of a host read each other's objects in place: in memory of their own, or in common; collective."""
    from hpcfut.edges.mpi.common_memory import MpiMemory

    one_host = environ.get(ONE_HOST_VARIABLE, "")
    readers = [world.rank] if one_host in (AS_BETWEEN_HOSTS, IN_MEMORY_OF_MPI) else neighbours
    arena = HostArena.among(readers, world.rank, nbytes, world.gather, is_checked=_is_debugged(environ))
    if one_host == AS_BETWEEN_HOSTS or must_survive:
        return arena, None
    return arena, MpiMemory.among(world, arena.neighbours, shared_memory_key().encode())


def _trouble_with(environ: Mapping[str, str], world: World) -> str:
    """The sentence that says which setting makes no sense; the same on all ranks."""
    from hpcfut.edges.mpi.deaths import trouble_with_tcp

    is_tolerant = is_fault_tolerant(environ)
    return (
        trouble_with_route(environ)
        or trouble_with_spares(environ, world.n_ranks, survives=is_tolerant)
        or stall_s_of(environ)[1]
        or (trouble_with_tcp(environ, world.thread_level) if is_tolerant else "")
    )


def _settle_deaths(environ: Mapping[str, str], world: World, version: str) -> tuple[bool, str]:
    """Whether the job survives deaths, and the sentence because of which it must not begin; the same on all ranks."""
    from hpcfut.edges.mpi.deaths import tells_of_deaths

    if not is_fault_tolerant(environ):
        return False, ""
    if b"0" not in world.gather(b"%d" % tells_of_deaths()):
        return True, ""
    sentence, is_refusal = denial(environ, version)
    if world.rank == 0 and not is_refusal:
        sys.stderr.write(f"hpcfut: {sentence}\n")
    return False, sentence if is_refusal else ""


class _GoingOn(NamedTuple):
    """What there is in a job that goes on when ranks die."""

    transport: Transport
    exits: Exits | None = None
    recruiting: Recruiting | None = None


def _going_on(
    base: MpiTransport, doorbell: HostDoorbell, arena: HostArena, roster: list[RankRecord], environ: Mapping[str, str]
) -> _GoingOn:
    from hpcfut.edges.mpi import links
    from hpcfut.edges.mpi.linked import LinkedTransport
    from hpcfut.edges.mpi.surviving import SurvivingTransport

    if not isinstance(base, SurvivingTransport):
        return _GoingOn(base)
    # Only on one host a process that is spawned is sure to come, and the others are sure to hear it.
    if environ.get(RESPAWN_VARIABLE, "1") == "0" or not doorbell.reaches_all:
        return _GoingOn(base, Exits())
    linked = LinkedTransport(base.rank, base)
    return _GoingOn(linked, Exits(), Recruiting(links, linked, doorbell, arena, roster, event_queues))


def join_job(environ: MutableMapping[str, str], path: str) -> Job:
    """Join the job of the process that has spawned this one, in place of a rank that has died.

    Args:
        environ: The environment of this process.
        path: Where this process says its number.

    Raises:
        HpcfutError: No rank has spawned this process.
    """
    from hpcfut.edges.host.launch_environment import Launch
    from hpcfut.edges.mpi import links
    from hpcfut.edges.mpi.linked import LinkedTransport
    from hpcfut.edges.mpi.start import start_mpi

    if not path:
        raise HpcfutError("--replacement is for processes that hpcfut starts itself, for ranks that have died.")
    say_number(path)
    die_with_parent()
    sharpen_timers()
    settle_mpi(Launch("openmpi"), environ)
    environ.setdefault(TCP_FLAGS_VARIABLE, TCP_FLAGS)
    world = start_mpi()
    # Nobody else maps what MPI has made here: processes that were not started together do not share memory there.
    StartSegments().unname(())
    pair = links.elder()
    if pair is None:
        raise HpcfutError("--replacement is for processes that hpcfut starts itself, for ranks that have died.")
    data = pair.receive()
    if not data:
        world.say_goodbye()
        os._exit(0)  # The session has ended meanwhile.
    invitation = msgspec.msgpack.decode(data, type=Invitation)
    environ.update(invitation.environ)
    record, opening = invitation.record, invitation.opening
    files = JobFiles.of_environment(environ)
    if files is not None:
        files.note_start(record.rank)
        files.note_segments(record.rank)
    limit_threads(record.resources["CPU"] // RESOURCE_UNIT, environ)
    doorbell = HostDoorbell(record.rank, record.rank + 1)
    doorbell.agree(doorbell.meet({0: invitation.cards.bell, record.rank: doorbell.card()}), False)
    nbytes = record.resources["memory"] // RESOURCE_UNIT
    arena = HostArena(record.rank, nbytes, is_checked=_is_debugged(environ), session=opening.number)
    transport, roster = LinkedTransport(record.rank, None), list(opening.roster)
    recruiting = Recruiting(links, transport, doorbell, arena, roster, event_queues)
    recruiting.find(0, invitation.cards)
    pair.send(msgspec.msgpack.encode(Arrival(os.getpid(), own_place().host_key, recruiting.cards())))
    transport.offer(0, pair.link(0, doorbell))
    transport.use(0)
    job = Job(world, transport, doorbell, arena, roster, Cores(), files, exits=Exits(), recruiting=recruiting)
    job.join_session(opening)
    return job


def _refuse_typed(launch: Launch) -> None:
    """At a prompt the sentence is an exception like any other, and the prompt stays."""
    from hpcfut.edges.host.launch_environment import typed_alone

    if is_typed() and not _has_user_started_mpi() and (sentence := typed_alone(launch)):
        raise HpcfutError(sentence)


def _start_alone(environ: MutableMapping[str, str], files: JobFiles | None) -> Job:
    from hpcfut.edges.host.loopback import LoopbackTransport

    place = own_place()
    cores = int(environ.get(CPUS_VARIABLE) or 0) or cores_of([place], 0)
    limit_threads(cores, environ)
    nbytes = memory_of_job(environ).nbytes_free
    record = _own_record(0, cores, nbytes, place, own_sight(environ).gpus)
    if sentence := lack_of_memory([record]) or stall_s_of(environ)[1]:
        raise HpcfutError(sentence)
    arena = HostArena(0, nbytes, is_checked=_is_debugged(environ))
    return Job(None, LoopbackTransport(), HostDoorbell(0, 1), arena, [record], Cores(), files)


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
        # One before it may be about to say it, whose failure then has the launcher end this rank as it sleeps.
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
    # The launcher may end ranks in the middle of their last steps; all have met, and none looks for a name any more.
    StartSegments().unname(())
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


def _is_debugged(environ: Mapping[str, str]) -> bool:
    return environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def _own_record(
    rank: int, cores: int, nbytes_memory: int, place: Place, gpus: list[str], *, is_spare: bool = False
) -> RankRecord:
    amounts = {"CPU": cores, "memory": nbytes_memory, **({"GPU": len(gpus)} if gpus else {})}
    return RankRecord(
        rank,
        0,
        place.host,
        place.host_key,
        os.getpid(),
        {name: amount * RESOURCE_UNIT for name, amount in amounts.items()},
        tuple(gpus),
        is_spare,
    )
