"""1,000 actors created on 4 ranks and each called once: from the first `remote()` to the last result.

    hpcfut run -n 4 benchmarks/many_actors.py

The handles go before the next round begins, and with them the actors.
"""

from __future__ import annotations

import gc
import time

from common import append_json_line, describe_spread, hash_of, parse_options, print_table

import hpcfut

CREATED_MUST_S = 1.0


class Cell:
    """One of many."""

    def __init__(self, number: int) -> None:
        self.number = number

    def add(self, number: int) -> tuple[int, int]:
        return hpcfut.get_runtime_context().get_rank(), self.number + number


def create_and_call(made: hpcfut.ActorClass, n_actors: int) -> tuple[float, float, list[tuple[int, int]]]:
    """Seconds until all have been asked for, seconds until all have answered, and what they said."""
    started = time.perf_counter()
    actors = [made.remote(number) for number in range(n_actors)]
    asked_s = time.perf_counter() - started
    results: list[tuple[int, int]] = hpcfut.get([actor.add.remote(1) for actor in actors])
    return asked_s, time.perf_counter() - started, results


def main() -> None:
    """Measures several rounds."""
    options = parse_options("Many actors, created and called once.", n_rounds=5)
    n_actors = 40 if options.small else 1000
    made = hpcfut.remote(scheduling_strategy="SPREAD")(Cell)
    asked, took, n_used = [], [], 0
    for number in range(options.rounds + 1):
        asked_s, took_s, results = create_and_call(made, n_actors)
        gc.collect()
        if [value for _, value in results] != [*range(1, n_actors + 1)]:
            raise SystemExit("The actors did not say what they must.")
        n_used = len({rank for rank, _ in results})
        if number or options.small:  # The first is a warm-up.
            asked.append(asked_s)
            took.append(took_s)
    print(f"{options.rounds} rounds of {n_actors} actors on {n_used} ranks: median (range)")
    print_table(
        [
            ("created, s", "created and called, s", "must"),
            (describe_spread(asked, ".3f"), describe_spread(took, ".3f"), f"<= {CREATED_MUST_S}"),
        ]
    )
    print(f"result hash {hash_of([value for _, value in results])}")
    append_json_line(
        options.output, benchmark="many_actors", n_actors=n_actors, figures={"actors created and called, s": took}
    )


if __name__ == "__main__":
    main()
