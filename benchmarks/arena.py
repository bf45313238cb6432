"""Microseconds of the allocator with many live segments, without MPI:  python benchmarks/arena.py"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from common import append_json_line, describe_spread, hash_of, parse_options, print_table

from hpcfut.core.arena import Arena

N_SEGMENTS = 100_000
N_PAIRS = 50_000
NBYTES_MEAN = 65_536

#: How sizes are drawn.
SIZES: dict[str, Callable[[random.Random], int]] = {
    "one size": lambda _: NBYTES_MEAN,
    "16 sizes": lambda dice: NBYTES_MEAN // 8 * dice.randint(1, 16),
    "any size": lambda dice: dice.randint(0, 2 * NBYTES_MEAN),
    "any magnitude": lambda dice: int(2 ** dice.uniform(0, 19)),
}


def fill(arena: Arena, dice: random.Random, draw: Callable[[random.Random], int], n_segments: int) -> list[int]:
    """Half more segments than wanted, of which a third goes again, anywhere."""
    offsets = [must(arena.allocate(draw(dice))) for _ in range(n_segments * 3 // 2)]
    dice.shuffle(offsets)
    for offset in offsets[n_segments:]:
        arena.free(offset)
    return offsets[:n_segments]


def must(offset: int | None) -> int:
    """The arena of this benchmark has room for all."""
    if offset is None:
        raise RuntimeError("The arena has no room.")
    return offset


def run_pairs(arena: Arena, offsets: list[int], places: Sequence[int], sizes: Sequence[int]) -> float:
    """Free one segment, anywhere, and allocate another one in its stead: seconds of processor time for each pair."""
    started = time.thread_time()
    for place, nbytes in zip(places, sizes, strict=True):
        arena.free(offsets[place])
        offsets[place] = must(arena.allocate(nbytes))
    return (time.thread_time() - started) / len(places)


def main() -> None:
    """All kinds of sizes in turn."""
    options = parse_options("Microseconds of the allocator with many live segments.", n_rounds=5)
    n_segments, n_pairs = (1000, 1000) if options.small else (N_SEGMENTS, N_PAIRS)
    figures: dict[str, list[float]] = {}
    for name, draw in SIZES.items():
        dice = random.Random(1)
        arena = Arena(1 << 40)
        offsets = fill(arena, dice, draw, n_segments)
        for _ in range(options.rounds):
            places = [dice.randrange(n_segments) for _ in range(n_pairs)]
            sizes = [draw(dice) for _ in range(n_pairs)]
            pair_s = run_pairs(arena, offsets, places, sizes)
            figures.setdefault(f"allocate and free, {name}, µs", []).append(pair_s * 1e6)
        arena.check()
        if arena.n_segments != n_segments:
            raise RuntimeError(f"The arena has {arena.n_segments} segments instead of {n_segments}.")
        unused = 1 - arena.nbytes_used / arena.nbytes_touched
        figures[f"free below the highest end, {name}, %"] = [100 * unused]
    header = (f"{n_segments} live segments", "median (smallest to largest)")
    print_table([header, *((name, describe_spread(values, ",.2f")) for name, values in figures.items())])
    print(f"result hash {hash_of(list(figures))}")
    append_json_line(options.output, benchmark="arena", figures=figures)


if __name__ == "__main__":
    main()
