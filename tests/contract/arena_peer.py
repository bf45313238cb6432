"""A rank of its own process: it seals an object, and then does what it is told, one line at a time.

arena_peer.py RANK NBYTES CARD_OF_RANK_0
"""

from __future__ import annotations

import mmap
import os
import sys

from hpcfut.edges.host.arena import HostArena
from hpcfut.model.errors import HpcfutError
from hpcfut.model.place import Place

OBJECT_ID = (1 << 44) | 7
TEXT = b"sealed by a peer"


def main() -> None:
    rank, nbytes, card = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    arena = HostArena(rank, nbytes)
    put_text(arena)
    arena.meet({0: card, rank: arena.card()})
    print(arena.card().hex(), flush=True)
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "view":
            try:
                offset, object_id, nbytes = map(int, numbers)
                text = bytes(arena.view(Place(object_id, 0, offset, nbytes))).decode()
                print(text, list(arena.released), flush=True)
            except HpcfutError as error:
                print(type(error).__name__, flush=True)
        elif word == "renew":
            arena = arena.renewed()
            put_text(arena)
            print("renewed", flush=True)
        elif word == "unseal":
            arena.unseal(0)
            print("unsealed", flush=True)
        elif word == "map":
            print(try_to_write(*map(int, numbers)), flush=True)


def put_text(arena: HostArena) -> None:
    """The first object."""
    arena.buffer(0, len(TEXT))[:] = TEXT
    arena.seal(0, OBJECT_ID, len(TEXT))


def try_to_write(pid: int, number: int) -> str:
    """Map the memory of another rank for writing."""
    descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
    try:
        mmap.mmap(descriptor, 4096).close()
    except PermissionError as error:
        return type(error).__name__
    finally:
        os.close(descriptor)
    return "mapped"


if __name__ == "__main__":
    main()
