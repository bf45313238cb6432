"""``python -m hpcfut script.py …`` on every rank: rank 0 runs the script, the others serve."""

from __future__ import annotations

import os
import sys
import traceback
import types
from pathlib import Path

from hpcfut.api import session

USAGE = """Usage: python -m hpcfut script.py [argument ...]
Runs the script on rank 0, while the other ranks serve; start it on every rank, as `hpcfut run` and mpirun do.
"""


def main() -> None:
    """Run the script that the command line names."""
    script = sys.argv[1] if len(sys.argv) > 1 else ""
    if script in ("-h", "--help"):
        sys.stdout.write(USAGE)
        sys.exit(0)
    if not script or script.startswith("-"):
        sys.stderr.write((f"hpcfut: {script} is unknown here.\n" if script else "") + USAGE)
        sys.exit(2)
    sys.argv[:] = sys.argv[1:]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        job = session.ensure_job()
    except (Exception, KeyboardInterrupt) as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        sys.stderr.write("hpcfut: interrupted while it started\n" if is_interrupt else f"hpcfut: {error}\n")
        sys.stderr.flush()
        os._exit(130 if is_interrupt else 1)  # MPI may be half way up; nothing of it can be ended in good order.
    if job.rank != 0:
        session.serve(job)
        session.leave(0)
    status = run_script(script)
    job.note_status(status)
    try:
        session.end_session(status, "", is_final=True)
        session.leave(status)
    except KeyboardInterrupt:
        job.note_status(130)
        job.abort(130)  # Whoever presses Ctrl-C at the end does not want to wait for it.


def run_script(script: str) -> int:
    """Run a script as ``__main__``; returns the exit status that Python would end with."""
    path = os.path.abspath(script)
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    try:
        code = compile(Path(path).read_bytes(), path, "exec")
    except OSError as error:
        sys.stderr.write(f"hpcfut: the script {script} cannot be read: {error.strerror}.\n")
        return 2
    except (SyntaxError, ValueError) as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        return 1
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        return exit_status(error)
    except BaseException as error:  # As Python itself ends a script: with the traceback and a status.
        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace.tb_next if trace is not None else None)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


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
