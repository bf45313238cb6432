"""Which route large objects take."""

from __future__ import annotations

import pytest

from hpcfut.runtime.route import is_one_sided, trouble_with_route


def never(*_: int) -> bool:
    raise AssertionError("This is tried for nothing.")


@pytest.mark.parametrize(("wanted", "expected"), [("rma", True), ("two-sided", False)])
def test_the_user_chooses(wanted: str, expected: bool) -> None:
    assert is_one_sided({"HPCFUT_ROUTE": wanted}, ["a", "b"], never, never) is expected


def test_one_host_needs_no_route() -> None:
    assert not is_one_sided({}, ["a", "a"], never, never)


@pytest.mark.parametrize("environ", [{}, {"HPCFUT_ROUTE": "auto"}])
def test_what_the_network_can_do_is_tried_where_it_may(environ: dict[str, str]) -> None:
    tried: list[tuple[int, int]] = []

    def attempt(reader: int, target: int) -> bool:
        tried.append((reader, target))
        return True

    assert not is_one_sided(environ, ["a", "b"], lambda: False, never)
    assert is_one_sided(environ, ["a", "a", "b", "b"], lambda: True, attempt)
    assert tried == [(2, 0)]
    assert not is_one_sided(environ, ["a", "b"], lambda: True, lambda reader, target: False)


def test_what_is_no_route() -> None:
    assert "HPCFUT_ROUTE=ib names no route" in trouble_with_route({"HPCFUT_ROUTE": "ib"})
    assert not trouble_with_route({})


@pytest.mark.parametrize(("value", "is_fine"), [("", True), ("no", True), ("mpi", True), ("yes", False)])
def test_one_host_is_one_of_few_words(value: str, is_fine: bool) -> None:
    said = trouble_with_route({"HPCFUT_ONE_HOST": value})
    expected = "HPCFUT_ONE_HOST=yes means nothing. Set it to mpi or no on all ranks, or leave it out."
    assert said == ("" if is_fine else expected)
