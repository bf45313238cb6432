"""What is explored, by name: small programs, for some ranks, within some bounds; and how many states each has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from hpcfut.sim.explored import Bounds
from hpcfut.sim.explorer import Counts, Explorer
from hpcfut.sim.mortal import MORTAL
from hpcfut.sim.ops import Body
from hpcfut.sim.races import RACES
from hpcfut.sim.scripts import SCRIPTS
from hpcfut.sim.world import Scenario

#: Bounds by what they are called at the end of a case's name.
BOUNDS: Final = {
    "": Bounds(),
    ", slow turns": Bounds(has_slow_turns=True),
    ", one early deadline": Bounds(n_early=1),
    ", one death": Bounds(n_deaths=1),
    ", two deaths": Bounds(n_deaths=2),
    ", slow turns, one death": Bounds(has_slow_turns=True, n_deaths=1),
    ", slow turns, one early deadline": Bounds(has_slow_turns=True, n_early=1),
}


class Case(msgspec.Struct, frozen=True):
    """One program to explore."""

    name: str
    n_ranks: int
    script: Body
    scenario: Scenario
    bounds: Bounds

    def explorer(self) -> Explorer:
        """Explores it from the beginning."""
        return Explorer(self.n_ranks, self.script, self.scenario, self.bounds)


def programs() -> dict[str, tuple[Body, Scenario, tuple[int, ...]]]:
    """All small programs by name: the script, the world, and for how many ranks it is interesting."""
    return SCRIPTS | {name: (script, Scenario(), (2, 3)) for name, script in RACES.items()} | MORTAL


def _cases() -> Iterator[Case]:
    for name, (script, scenario, numbers) in programs().items():
        for n_ranks in numbers:
            for suffix, bounds in BOUNDS.items():
                if name in MORTAL and not bounds.n_deaths:
                    continue
                config = msgspec.structs.replace(scenario.config, survives_deaths=bounds.n_deaths > 0)
                world = msgspec.structs.replace(scenario, config=config)
                yield Case(f"{name}, {n_ranks} ranks{suffix}", n_ranks, script, world, bounds)


#: All of them, by name.
CASES: Final = {case.name: case for case in _cases()}


def decode_counts(text: bytes) -> dict[str, Counts]:
    """The counts of cases, as they are kept in a file."""
    return msgspec.json.decode(text, type=dict[str, Counts])


def encode_counts(counts: dict[str, Counts]) -> bytes:
    """The other way round: one line a case."""
    lines = [f"  {name!r}: ".replace("'", '"') + msgspec.json.encode(each).decode() for name, each in counts.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
