"""The transition tables as a whole: every row has a test, every other pair raises, and every late input is expected."""

from __future__ import annotations

import ast
import importlib
import itertools
from pathlib import Path

import pytest

from hpcfut.core.context import Table, Transitions
from hpcfut.core.rank import RankCore
from hpcfut.model.errors import IllegalTransitionError
from tests.core.cores import ROWS, TABLES, TESTED, MakeCore, Row
from tests.sources import CORE

TESTS = sorted(Path(__file__).parent.glob("test_*.py"))


@pytest.fixture(scope="module")
def tested() -> dict[Row, str]:
    """What all tests of this folder say they take, whichever of them run now."""
    for path in TESTS:
        importlib.import_module(f"tests.core.{path.stem}")
    return TESTED


@pytest.mark.parametrize("row", ROWS, ids=": ".join)
def test_row_has_a_test(row: Row, tested: dict[Row, str]) -> None:
    assert row in tested, "Mark a test with @takes that takes this row."


def test_no_test_speaks_of_rows_that_are_gone(tested: dict[Row, str]) -> None:
    assert set(tested) == set(ROWS)


@pytest.mark.parametrize("machine", TABLES)
def test_other_pairs_raise(machine: str) -> None:
    table = Table(machine, TABLES[machine])
    states = dict.fromkeys(itertools.chain((state for state, _ in table), table.values()))
    inputs = dict.fromkeys(what for _, what in table)
    illegal = [pair for pair in itertools.product(states, inputs) if pair not in TABLES[machine]]
    assert illegal
    for pair in illegal:
        with pytest.raises(IllegalTransitionError, match=f"{machine} machine was told '{pair[1]}' in state"):
            table[pair]


@pytest.mark.parametrize("machine", TABLES)
def test_states_can_be_reached_and_left_for_good(machine: str) -> None:
    """Every state but the last ones can be left, and from every state some last one can be reached."""
    table = TABLES[machine]
    first = next(iter(table))[0]
    reached = [first]
    for state in reached:
        reached += [after for (before, _), after in table.items() if before == state and after not in reached]
    assert set(reached) == {state for state, _ in table} | set(table.values())
    left = {before for (before, _), after in table.items() if before != after}
    ends = [state for state in reached if state not in left]
    leading = list(ends)
    for state in leading:
        leading += [before for (before, _), after in table.items() if after == state and before not in leading]
    assert ends
    assert set(leading) == set(reached)


def test_tables_are_those_of_the_machines(make_core: MakeCore) -> None:
    made: dict[str, Table] = {}

    def make_table(machine: str, transitions: Transitions) -> Table:
        made[machine] = Table(machine, transitions)
        return made[machine]

    hand = make_core()
    membership = hand.core.membership
    RankCore(0, membership.roster, hand.core.context.config, nbytes_store=0, is_driver=True, make_table=make_table)
    assert made == TABLES


def stale_names() -> list[str]:
    """Every kind of late input that some machine counts, as its source says."""
    calls = (node for module in CORE for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    named = (call.args[0] for call in calls if ast.unparse(call.func).endswith("count_stale"))
    return sorted({str(name.value) for name in named if isinstance(name, ast.Constant)})


@pytest.mark.parametrize("name", stale_names())
def test_late_input_has_a_test(name: str) -> None:
    tests = [path for path in TESTS if f'stale("{name}")' in path.read_text()]
    assert tests, "Write a test in which this happens, and which asserts that it was counted."


def test_what_is_no_event_raises(make_core: MakeCore) -> None:
    hand = make_core()
    with pytest.raises(IllegalTransitionError, match="which is no event"):
        hand.core.handle("an event", 0.0)  # type: ignore[arg-type]
