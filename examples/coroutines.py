"""asyncio: coroutines that wait for tasks while the event loop goes on.

On one rank, and on four:

    python examples/coroutines.py
    hpcfut run -n 4 examples/coroutines.py

Every text gets a stamp: a number that gives it a hash with four zeros in front. Tasks look for it, range by range.
"""

import asyncio
import hashlib
from itertools import count

import hpcfut

N_TRIED = 20_000


@hpcfut.remote
def find_stamp(text: str, first: int) -> int | None:
    for stamp in range(first, first + N_TRIED):
        if hashlib.sha256(f"{text} {stamp}".encode()).hexdigest().startswith("0000"):
            return stamp
    return None


async def stamp_of(text: str) -> int:
    for first in count(step=4 * N_TRIED):
        # A reference can be awaited like any coroutine: alone, in gather(), in wait_for() …
        ranges = [find_stamp.remote(text, first + k * N_TRIED) for k in range(4)]
        stamps: list[int] = [stamp for stamp in await asyncio.gather(*ranges) if stamp is not None]
        if stamps:
            return min(stamps)
    raise AssertionError("count() never ends.")


async def tick(ticks: list[None]) -> None:
    while True:
        ticks.append(None)
        await asyncio.sleep(0.001)


async def main() -> None:
    ticks: list[None] = []
    ticking = asyncio.create_task(tick(ticks))
    texts = ["a letter", "a parcel", "a postcard"]
    for text, stamp in zip(texts, await asyncio.gather(*map(stamp_of, texts)), strict=True):
        print(f"{text} gets the stamp {stamp}.")
    ticking.cancel()
    print(f"Meanwhile the event loop {'went on' if len(ticks) > 1 else 'stood still'}.")


asyncio.run(main())
