"""The functions under the word count's tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from examples.wordcount import Files, count_words, join, split, summarize

WORDS = Counter({"the": 7, "a": 3, "ä": 3, "self": 2, "once": 1})


def test_words_are_letters_in_lower_case(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text("The the snake_case x1 Ärger 42 don't", encoding="utf-8")
    words, files = count_words([path])
    assert words == Counter({"the": 2, "snake": 1, "case": 1, "x": 1, "ärger": 1, "don": 1, "t": 1})
    assert files == Files(path.stat().st_size, ())


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"word \xff\xfe word\x00")
    words, files = count_words([binary, tmp_path / "missing.py"])
    assert words == Counter({"word": 2})
    assert files.unreadable == (str(tmp_path / "missing.py"),)


@pytest.mark.parametrize("n_parts", [1, 2, 7])
def test_parts_share_no_word_and_lose_none(n_parts: int) -> None:
    parts = split(WORDS, n_parts)
    assert len(parts) == n_parts
    assert sum(parts, Counter()) == WORDS
    assert sum(map(len, parts)) == len(WORDS)


def test_a_word_has_the_same_part_in_every_process() -> None:
    assert "self" in split(WORDS, 7)[5]


@pytest.mark.parametrize("n_parts", [1, 2, 7])
def test_parts_join_to_the_summary_of_the_whole(n_parts: int) -> None:
    whole = summarize(WORDS, 3)
    assert whole.top == [("the", 7), ("a", 3), ("ä", 3)]
    assert (whole.n_words, whole.n_distinct) == (16, 5)
    assert join((summarize(part, 3) for part in split(WORDS, n_parts)), 3) == whole


def test_the_digest_sees_counts_and_words_but_not_their_order() -> None:
    digest = summarize(WORDS, 1).digest
    backwards = Counter(dict(reversed(WORDS.items())))
    swapped = WORDS | {"the": 3, "a": 7}
    renamed = Counter({word.replace("once", "twice"): n for word, n in WORDS.items()})
    assert summarize(backwards, 1).digest == digest
    assert digest not in (summarize(Counter(swapped), 1).digest, summarize(renamed, 1).digest)
