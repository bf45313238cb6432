"""The one runtime of this process: ``init``, ``shutdown`` and who serves."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from hpcfut.api.interrupts import catch_interrupts, leave_interrupts_to_driver
from hpcfut.api.refs import ObjectRef, id_of
from hpcfut.api.settings import config_of
from hpcfut.model.config import Config
from hpcfut.model.errors import SessionEndedError
from hpcfut.runtime.bootstrap import join_job, start_job
from hpcfut.runtime.job import Job, RefHooks, is_interactive
from hpcfut.runtime.runtime import Runtime

if TYPE_CHECKING:
    from hpcfut.runtime.child import ChildRuntime


class _Session:
    """What a process knows of its job and its session; the only mutable state at module level in hpcfut."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.runtime: Runtime | None = None
        #: Gives Ctrl-C back to Python.
        self.restore_interrupts: Callable[[], None] | None = None
        self.status = 0
        #: This process has left its job, and there is no other to meet.
        self.has_left = False
        self.pid = os.getpid()
        self.lock = threading.RLock()


_session = _Session()


def _leave_to_parent() -> None:
    """This is a forked child (of a data loader, say): it has no rank, and hpcfut raises in it."""
    runtime, _session.runtime, _session.job = _session.runtime, None, None
    if runtime is not None:
        runtime.disown()


os.register_at_fork(after_in_child=_leave_to_parent)


def init(
    *,
    ignore_reinit_error: bool = False,
    num_gpus: float | None = None,
    resources: Mapping[str | int, float | Mapping[str, float]] | None = None,
    object_store_memory: int | None = None,
    spill_folder: str | os.PathLike[str] | None = None,
    lineage_memory: int | None = None,
    namespace: str | None = None,
) -> None:
    """Start hpcfut; implied by the first call that needs it.

    On several ranks that were started without ``python -m hpcfut`` it returns on rank 0 alone; the others serve inside
    it and exit with the job. In an SPMD job every rank calls it, with the same options.

    Example:
        >>> hpcfut.init(resources={"licence": 2}, object_store_memory=10**9)
        >>> hpcfut.cluster_resources()["licence"]
        2.0

    Args:
        ignore_reinit_error: Do nothing, instead of raising, if hpcfut runs already.
        num_gpus: GPUs of every rank, instead of those that are found.
        resources: User-defined resources: by name the amount that every rank has, and by the number of a rank a
            mapping of what this rank has instead, as in ``{"disk": 2, 0: {"camera": 1}}``.
        object_store_memory: Bytes of large objects that every rank may hold in memory; three tenths of the rank's share
            of the memory that the job has, if it is not given.
        spill_folder: Where objects go that there is no room for in memory, on every host. The nearest disk is taken if
            neither this nor the environment variable ``HPCFUT_SPILL_FOLDER`` names a folder.
        lineage_memory: Bytes that every rank may keep to make lost objects again, of calls and of the values, large
            ones included, that they keep as arguments: 256 MiB, if neither this nor ``HPCFUT_LINEAGE_MEMORY`` says
            otherwise. Beyond, the oldest are dropped.
        namespace: Where names of actors are looked for, unless somebody says otherwise.

    Raises:
        RuntimeError: hpcfut runs already, or this is a forked child of a rank.
        ValueError: An option makes no sense; the sentence says which and why.
    """
    with _session.lock:
        if is_initialized():
            if ignore_reinit_error:
                return
            raise RuntimeError(
                "hpcfut.init() was called a second time. Call it once, call shutdown() before, or pass "
                "ignore_reinit_error=True."
            )
        options = num_gpus, resources or {}, object_store_memory, spill_folder or "", lineage_memory, namespace
        _open(config_of(*options), is_said=True)


def _open(config: Config, *, is_said: bool) -> None:
    job = ensure_job()
    if not job.has_driver:
        leave(serve(job))
    if trouble := job.trouble_with(config):
        raise ValueError(trouble)
    opened = job.open_session(config, hooks()) if job.rank == 0 else job.await_session(hooks())
    assert isinstance(opened, Runtime), "Rank 0 leaves together with all others."
    _session.runtime = opened
    opened.helper.start()
    if job.rank == 0:
        _session.restore_interrupts = catch_interrupts(opened)
    elif is_said and opened.config != config:
        raise ValueError(
            f"init() was called with other options on rank {job.rank} than on rank 0. In an SPMD job all ranks begin a "
            f"session together; give it the same options on all of them."
        )


def is_initialized() -> bool:
    """Whether a session is open on this rank.

    Example:
        >>> hpcfut.is_initialized()
        False
        >>> hpcfut.init()
        >>> hpcfut.is_initialized()
        True
    """
    runtime = _session.runtime
    return runtime is not None and not runtime.is_over


def shutdown() -> None:
    """End the session on all ranks; refs of it cannot be used any more. A later ``init`` starts a new one.

    Example:
        >>> hpcfut.init()
        >>> hpcfut.shutdown()
        >>> hpcfut.is_initialized()
        False

    Raises:
        RuntimeError: This was called in a task.
    """
    runtime = _session.runtime
    job = _session.job
    if runtime is not None and (runtime.task_id or job is None or not job.has_driver):
        raise RuntimeError(
            "shutdown() was called in a task. Only the script can end the session, which its tasks are part of; a task "
            "ends by returning."
        )
    end_session(0, is_final=False)


def current() -> Runtime:
    """The runtime; starts one if there is none."""
    runtime = _session.runtime
    if runtime is not None:
        return runtime
    _demand_own_process()
    with _session.lock:
        if _session.runtime is None:
            _open(config_of(), is_said=False)
        assert _session.runtime is not None
        return _session.runtime


def runtime_of(*refs: ObjectRef[Any]) -> Runtime:
    """The runtime that these refs belong to.

    Raises:
        SessionEndedError: The session of one of them is over.
    """
    runtime = _session.runtime
    released = runtime.released if runtime is not None else None
    for ref in refs:
        if ref._released is not released:
            _demand_own_process()
            raise SessionEndedError(
                f"{ref!r} belongs to a session that is over: shutdown() was called since. Values do not outlive their "
                f"session; make them anew."
            )
    assert runtime is not None
    return runtime


def demand_current(runtime: Runtime, thing: object) -> None:
    """See to it that something that a task returned is not of an earlier session.

    Raises:
        SessionEndedError: It is.
    """
    if runtime is not _session.runtime:
        _demand_own_process()
        raise SessionEndedError(
            f"{thing!r} belongs to a session that is over: shutdown() was called since. Call the function anew."
        )


def hooks() -> RefHooks:
    """How the runtime handles refs."""

    def make_ref(object_id: int) -> ObjectRef[object]:
        runtime = _session.runtime
        assert runtime is not None
        return ObjectRef(object_id, runtime.released)

    def id_of_own(ref: ObjectRef[object]) -> int:
        """A ref that is sent must not be one of an earlier session, whose ids mean nothing any more."""
        runtime_of(ref)
        return id_of(ref)

    return RefHooks(ObjectRef, id_of_own, make_ref)


def ensure_job(*, is_spmd: bool = False, says_number_at: str | None = None) -> Job:
    """Meet the other ranks, once a process.

    ``is_spmd``: every rank runs the script. ``says_number_at``: this process was spawned for a rank that has died, and
    says its number there.
    """
    _demand_own_process()
    if _session.has_left:
        raise SessionEndedError(
            "hpcfut was used after the end of the script, in a thread that goes on or at exit: the job is over. Join "
            "such threads before the script ends."
        )
    if _session.job is None:
        _session.job = start_job(os.environ) if says_number_at is None else join_job(os.environ, says_number_at)
        _session.job.is_spmd = is_spmd
        if is_spmd and _session.job.rank != 0:
            leave_interrupts_to_driver()
        atexit.register(_leave_at_exit)
        if not is_interactive():
            _note_uncaught_exceptions()
    return _session.job


def serve(job: Job) -> int:
    """Be a worker, session after session, until the job ends; returns its exit status."""
    leave_interrupts_to_driver()
    while True:
        opened = job.await_session(hooks())
        if isinstance(opened, int):
            return opened
        _session.runtime = opened
        opened.serve()
        end = opened.engine.end
        assert end is not None
        if job.is_unused(opened):
            job.leave_unused()
        if not job.close_session(opened):
            if not job.has_lost_rank_0:
                _leave_end_to_rank_0(opened)
            if failure := end.failure or job.hindrance:
                sys.stderr.write(f"hpcfut: {failure}\n")
            job.abort(end.status or 1)
        _session.runtime = None


def _leave_end_to_rank_0(runtime: Runtime) -> None:
    """Rank 0 ends the job, with the sentence; another rank waits for that, but not for ever."""
    threading.Event().wait(runtime.config.stop_grace_s + 5.0)


def end_session(status: int, *, is_final: bool) -> None:
    """End the session from its driver, and leave it together with all other ranks."""
    runtime, job = _session.runtime, _session.job
    if runtime is None or job is None:
        return
    if not runtime.is_over:
        if job.is_spmd:
            runtime.end_driver(status, is_final=is_final)
        else:
            runtime.stop(status, "", is_final=is_final)
    if _session.restore_interrupts is not None:
        _session.restore_interrupts()
        _session.restore_interrupts = None
    end = runtime.engine.end
    assert end is not None
    if not job.close_session(runtime):
        failure, status = end.failure or job.hindrance, end.status
        if job.rank != 0:
            _leave_end_to_rank_0(runtime)
        if not is_final:
            # The script would go on, but there are no ranks left that could begin a new session together.
            failure = failure or "shutdown() met a rank that does not answer; the job ends."
        if failure:
            status = status or 1
        if failure:
            sys.stderr.write(f"hpcfut: {failure}\n")
        job.note_status(status, failure)
        job.abort(status)
    _session.runtime = None


def finish(status: int) -> NoReturn:
    """Exit after a script that was started with ``-m hpcfut``.

    Python then waits for the threads of the script, and calls what it has registered for that; the session ends last.
    In an SPMD job it ends here: a rank that works for others may need new threads, which Python starts no more then.
    """
    job = ensure_job()
    if job.is_spmd:
        try:
            status = _end_with_others(status)
        except KeyboardInterrupt:
            job.note_status(130)
            job.abort(130)
        _session.has_left = True
    _session.status = status
    if job.rank == 0:
        job.note_status(status)
    sys.exit(job.exit_status(status))


def _end_with_others(status: int) -> int:
    """Take part in the sessions of the others until all scripts have ended; gives the status of the job on rank 0."""
    while True:
        runtime = current()
        end_session(status, is_final=True)
        end = runtime.engine.end
        assert end is not None
        if end.is_final:
            return end.status if runtime.rank == 0 else 0


def leave(status: int) -> NoReturn:
    """End this process's part in the job and exit."""
    job, _session.job = _session.job, None
    _session.has_left = True
    sys.stdout.flush()
    sys.stderr.flush()
    if job is not None:
        job.leave(status)
        status = job.exit_status(status)
    if sys.flags.inspect:
        os._exit(status)  # Python would show a prompt, which on rank 0 alone somebody sees.
    sys.exit(status)


def _note_uncaught_exceptions() -> None:
    """At exit nobody says with which status, and a failed script must not pass for a good one."""
    tell = sys.excepthook

    def note(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _session.status = 1
        tell(kind, error, trace)

    sys.excepthook = note


def _leave_at_exit() -> None:
    """The script has ended, and so have its threads and whatever it registered to be called at exit.

    If it was started without ``-m hpcfut``, its session is still open.
    """
    job = _session.job
    if job is None or os.getpid() != _session.pid:
        return
    try:
        end_session(_session.status, is_final=True)
        _session.job = None
        _session.has_left = True
        job.leave(_session.status)
    except KeyboardInterrupt:
        job.note_status(130)
        job.abort(130)  # Whoever presses Ctrl-C at the end does not want to wait for it.


def enter_child(runtime: ChildRuntime) -> None:
    """This process runs the code of isolated tasks of a rank, which does what they want of hpcfut."""
    # Of a runtime it has what a task may use, and says so where something else is wanted.
    _session.runtime = cast(Runtime, runtime)
    _session.pid = os.getpid()


def _demand_own_process() -> None:
    if os.getpid() != _session.pid:
        raise RuntimeError(
            "hpcfut was used in a forked child process of a rank. A child has no rank of its own: give the work to a "
            "task instead, or pass plain values to the child."
        )
