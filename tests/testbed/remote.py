"""In place of ssh and sshd on the hosts of the testbed.

    remote.py serve SOCKET SCRATCH                  runs what it is asked to, where it was started
    remote.py ask FOLDER [OPTION...] HOST WORD...   asks the host whose socket is in FOLDER

As with ssh, the words are joined into one line for a shell, nothing of the caller's environment
arrives (but the variable by which the tests find the processes of a job), the status of the command
is that of the caller, and the command lives on where the caller dies.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from tests.mpi.jobs import MARKER

SSH_OPTIONS_WITH_A_VALUE = ("-i", "-l", "-o", "-p")
NBYTES_REQUEST_MAX = 1 << 20


def serve(path: str, scratch: str) -> None:
    """Serves until it is killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection = listener.accept()[0]
            threading.Thread(target=_run, args=(connection, scratch), daemon=True).start()


def _run(connection: socket.socket, scratch: str) -> None:
    request, streams, _, _ = socket.recv_fds(connection, NBYTES_REQUEST_MAX, 3)
    asked = json.loads(request)
    environment = {
        "HOME": os.environ["HOME"],
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "TMPDIR": scratch,
        MARKER: asked["marker"],
    }
    stdin, stdout, stderr = streams
    process = subprocess.Popen(
        ["/bin/sh", "-c", asked["line"]],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=environment["HOME"],
        start_new_session=True,
    )
    for stream in streams:
        os.close(stream)
    status = process.wait()
    with suppress(OSError), connection:
        connection.send(str(status if status >= 0 else 128 - status).encode())


def ask(folder: str, *words: str) -> int:
    """Runs a command on a host; returns its status, or ssh's 255."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        del rest[: 2 if rest[0] in SSH_OPTIONS_WITH_A_VALUE else 1]
    host, *line = rest
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(f"{folder}/{host}.socket")
            request = {"line": " ".join(line), "marker": os.environ.get(MARKER, "")}
            socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
            return int(connection.recv(16) or b"255")
        except OSError as error:
            print(f"The testbed cannot reach the host '{host}': {error}.", file=sys.stderr)
            return 255


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3])
    sys.exit(ask(*sys.argv[2:]))
