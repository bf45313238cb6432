"""How many ranks are spare ones, and what cannot be."""

from __future__ import annotations

import pytest

from hpcfut.runtime.rank_watch import STALL_S, stall_s_of
from hpcfut.runtime.spares import denial, n_spares_of, trouble_with_spares


@pytest.mark.parametrize(
    ("text", "n_ranks", "words"),
    [
        ("two", 5, "is no number of ranks"),
        ("²", 5, "is no number"),
        ("-1", 5, "is no number"),
        ("2", 3, "leaves too few of 3"),
        ("1", 1, "few"),
    ],
)
def test_nonsense_is_a_sentence(text: str, n_ranks: int, words: str) -> None:
    assert words in trouble_with_spares({"HPCFUT_SPARES": text}, n_ranks, survives=True)


def test_they_need_a_job_that_survives_deaths() -> None:
    environ = {"HPCFUT_SPARES": "2"}
    assert n_spares_of(environ) == 2
    assert trouble_with_spares(environ, 6, survives=True) == ""
    assert "--with-ft ulfm" in trouble_with_spares(environ, 6, survives=False)
    assert n_spares_of({}) == 0
    assert trouble_with_spares({}, 1, survives=False) == ""


def test_an_mpi_that_tells_of_no_deaths_is_refused_only_where_that_was_demanded() -> None:
    for demand in ({"HPCFUT_FAULT_TOLERANCE": "on"}, {"HPCFUT_SPARES": "2"}):
        sentence, is_refusal = denial(demand, "Open MPI v9")
        assert is_refusal
        assert "Open MPI v9 tells of no deaths" in sentence
        assert "=".join(*demand.items()) in sentence
    sentence, is_refusal = denial({}, "Open MPI v9")
    assert not is_refusal
    assert sentence.startswith("The death of a rank will end this job")


def test_when_a_rank_has_stalled() -> None:
    assert stall_s_of({}) == (STALL_S, "")
    assert stall_s_of({"HPCFUT_STALL_S": "0"}) == (0.0, "")
    for text in ("soon", "-1", "inf", "nan"):
        assert "is no number of seconds" in stall_s_of({"HPCFUT_STALL_S": text})[1]
