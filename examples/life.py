"""The Game of Life on strips: every strip is an actor, and gives its neighbours its borders as references.

On one rank, and on four:

    python examples/life.py
    hpcfut run -n 4 examples/life.py 400

All generations are asked for at once, and each strip goes on as soon as it has its neighbours' borders.
"""

import sys
from typing import Any

import numpy as np

import hpcfut

N_STRIPS, N_ROWS, N_COLUMNS = 4, 32, 128
#: The pi-heptomino, by row and column: it settles in generation 173, at 55 cells.
CELLS = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)]

Row = np.ndarray[Any, np.dtype[np.int8]]


class Strip:
    """Some rows of a torus."""

    def __init__(self, cells: list[tuple[int, int]]) -> None:
        self.alive = np.zeros((N_ROWS, N_COLUMNS), np.int8)
        for cell in cells:
            self.alive[cell] = 1

    @hpcfut.method(num_returns=2)
    def borders(self) -> tuple[Row, Row]:
        return self.alive[0], self.alive[-1]

    @hpcfut.method(num_returns=2)
    def advance(self, above: Row, below: Row) -> tuple[Row, Row]:
        """To the next generation, of which the borders are given."""
        rows = np.vstack([above, self.alive, below])
        three = np.roll(rows, -1, 1) + rows + np.roll(rows, 1, 1)
        around = three[:-2] + three[1:-1] + three[2:]  # The cell itself counts as well.
        self.alive = ((around == 3) | (around == 4) & (self.alive == 1)).astype(np.int8)
        return self.borders()

    def count(self) -> int:
        return int(self.alive.sum())


n_generations = int(sys.argv[1]) if len(sys.argv) > 1 else 180
in_middle = [(N_ROWS // 2 + row, N_COLUMNS // 2 + column) for row, column in CELLS]
made = hpcfut.remote(scheduling_strategy="SPREAD")(Strip)
strips = [made.remote(in_middle if number == 1 else []) for number in range(N_STRIPS)]
borders = [strip.borders.remote() for strip in strips]
for _ in range(n_generations):
    around = [(borders[number - 1][1], borders[(number + 1) % N_STRIPS][0]) for number in range(N_STRIPS)]
    borders = [strip.advance.remote(*pair) for strip, pair in zip(strips, around, strict=True)]
print(f"In generation {n_generations} {sum(hpcfut.get([strip.count.remote() for strip in strips]))} cells are alive.")
