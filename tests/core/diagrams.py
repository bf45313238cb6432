"""The state diagrams of ``hpcfut/core/README.md``, drawn from the transition tables.

``python -m tests.core.diagrams`` writes them anew; a test fails when they are stale.
"""

from __future__ import annotations

import re
from typing import Final

from hpcfut.core.context import Transitions
from tests.core.cores import TABLES
from tests.sources import PACKAGE

README: Final = PACKAGE / "core" / "README.md"
_PLACE: Final = re.compile(r"(<!-- diagram: (\w+) -->\n).*?(<!-- end of diagram -->)", re.DOTALL)


def diagram_of(table: Transitions) -> str:
    """One table as a state diagram; inputs that lead from one state to another stand on one arrow."""
    states = list(dict.fromkeys([*(state for state, _ in table), *table.values()]))
    names = {state: state.replace(" ", "_") for state in states}
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, what), after in table.items():
        arrows.setdefault((state, after), []).append(what)
    left = {before for before, after in arrows if before != after}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state}" as {name}' for state, name in names.items() if state != name]
    lines += [f"    [*] --> {names[states[0]]}"]
    lines += [f"    {names[state]} --> {names[after]}: {', '.join(what)}" for (state, after), what in arrows.items()]
    lines += [f"    {names[state]} --> [*]" for state in states if state not in left]
    return "\n".join([*lines, "```"]) + "\n"


def with_diagrams(text: str) -> str:
    """The page with every diagram drawn anew."""
    return _PLACE.sub(lambda place: f"{place[1]}{diagram_of(TABLES[place[2]])}{place[3]}", text)


def drawn(text: str) -> list[str]:
    """The machines that have a diagram on the page."""
    return [place[2] for place in _PLACE.finditer(text)]


if __name__ == "__main__":
    README.write_text(with_diagrams(README.read_text()))
