"""The page about the core shows the tables as they are."""

from __future__ import annotations

from tests.core.cores import TABLES
from tests.core.diagrams import README, diagram_of, drawn, with_diagrams


def test_the_page_is_up_to_date() -> None:
    text = README.read_text()
    assert with_diagrams(text) == text, "Run: python -m tests.core.diagrams"


def test_every_table_is_drawn_once() -> None:
    assert sorted(drawn(README.read_text())) == sorted(TABLES)


def test_a_diagram_names_every_row() -> None:
    table = {("new", "start"): "under way", ("under way", "end"): "over", ("under way", "break"): "over"}
    assert diagram_of(table).splitlines() == [
        "```mermaid",
        "stateDiagram-v2",
        '    state "under way" as under_way',
        "    [*] --> new",
        "    new --> under_way: start",
        "    under_way --> over: end, break",
        "    over --> [*]",
        "```",
    ]
