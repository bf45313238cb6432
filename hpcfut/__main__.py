"""``python -m hpcfut script.py …`` on every rank: rank 0 runs the script, the others serve.

With ``--spmd`` every rank runs it, and serves the others as well.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
import types
from pathlib import Path

from hpcfut.api import session

USAGE = """Usage: python -m hpcfut [--spmd] script.py [argument ...]
Runs the script on rank 0, while the other ranks serve; start it on every rank, as `hpcfut run` and mpirun do.
With --spmd every rank runs the script, and serves the others as well.
"""


def main() -> None:
    """Run the script that the command line names."""
    is_spmd = sys.argv[1:2] == ["--spmd"]
    if is_spmd:
        del sys.argv[1]
    script = sys.argv[1] if len(sys.argv) > 1 else ""
    if script in ("-h", "--help"):
        sys.stdout.write(USAGE)
        sys.exit(0)
    # So hpcfut itself starts a process for a rank that has died; it gets the script's arguments from the job.
    is_replacement = script == "--replacement"
    if not script or (script.startswith("-") and not is_replacement):
        sys.stderr.write((f"hpcfut: {script} is unknown here.\n" if script else "") + USAGE)
        sys.exit(2)
    sys.argv[:] = sys.argv[1:]
    if not is_replacement:
        sys.path[0] = str(Path(script).resolve().parent)
    says_number_at = (sys.argv[1] if len(sys.argv) > 1 else "") if is_replacement else None
    try:
        job = session.ensure_job(is_spmd=is_spmd, says_number_at=says_number_at)
    except (Exception, KeyboardInterrupt) as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        sys.stderr.write("hpcfut: interrupted while it started\n" if is_interrupt else f"hpcfut: {error}\n")
        sys.stderr.flush()
        os._exit(130 if is_interrupt else 1)  # MPI may be half way up; nothing of it can be ended in good order.
    if not job.has_driver:
        session.serve(job)
        session.leave(0)
    status, has_failed = run_script(script)
    if has_failed and is_spmd:
        # The others may be waiting for this rank in a call of MPI.
        sys.stderr.write(f"hpcfut: the script failed on rank {job.rank}, which ends the job.\n")
        job.note_status(status)
        job.abort(status)
    if is_spmd:
        await_threads()
    session.finish(status)


def await_threads() -> None:
    """Wait as Python will do when it ends: for all threads but daemons, after telling idle pools to end."""
    pools = sys.modules.get("concurrent.futures.thread")
    if pools is not None:
        for pool in [thing for thing in gc.get_objects() if issubclass(type(thing), pools.ThreadPoolExecutor)]:
            pool.shutdown()
    own = threading.current_thread()
    while threads := [thread for thread in threading.enumerate() if thread is not own and not thread.daemon]:
        for thread in threads:
            thread.join()


def run_script(script: str) -> tuple[int, bool]:
    """Run a script as ``__main__``.

    Returns:
        The exit status that Python would end with, and whether it ended by an exception other than ``SystemExit``.
    """
    path = os.path.abspath(script)
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    try:
        code = compile(Path(path).read_bytes(), path, "exec")
    except OSError as error:
        sys.stderr.write(f"hpcfut: the script {script} cannot be read: {error.strerror}.\n")
        return 2, True
    except (SyntaxError, ValueError) as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        return 1, True
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        return exit_status(error), False
    except BaseException as error:  # As Python itself ends a script: with the traceback and a status.
        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace.tb_next if trace is not None else None)
        return 130 if isinstance(error, KeyboardInterrupt) else 1, True
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0, False


def exit_status(error: SystemExit) -> int:
    """What Python makes of ``sys.exit(code)``."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    sys.stderr.write(f"{error.code}\n")
    return 1


if __name__ == "__main__":
    main()
