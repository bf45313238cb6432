"""Small trees of text whose word counts are known without counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def make_texts(folder: Path) -> Counter[str]:
    """Files in several folders and encodings, some empty, some no text at all; returns the words in them."""
    words: Counter[str] = Counter()
    for number in range(1, 12):
        counts = {"common": 10 * number, "ärger": number, f"only{'x' * number}": 1}
        below = folder / "a folder" / f"number {number % 3}"
        below.mkdir(parents=True, exist_ok=True)
        text = " ".join(word for word, n in counts.items() for _ in range(n))
        (below / f"text {number}.txt").write_text(text, encoding="utf-8")
        words.update(counts)
    (folder / "empty.txt").touch()
    (folder / "binary.txt").write_bytes(b"common\xff\xfe common\x00")
    words["common"] += 2
    (folder / "other.md").write_text("of another pattern")
    # The same file by two names is counted once, and a name without a file not at all.
    (folder / "again.txt").symlink_to(below / "text 11.txt")
    (folder / "broken.txt").symlink_to(folder / "nowhere")
    left_out = folder / "left out"
    left_out.mkdir()
    (left_out / "unread.txt").write_text("common unread")
    return words


def word_of(number: int) -> str:
    """A word of 12 letters for each number."""
    letters = ""
    for _ in range(12):
        number, digit = divmod(number, 26)
        letters += chr(ord("a") + digit)
    return letters


def make_wide_texts(folder: Path, n_files: int, n_words: int) -> None:
    """Files of ``n_words`` words that are not in the other files, so that the counts are as large as the text."""
    for number in range(n_files):
        words = map(word_of, range(number * n_words, (number + 1) * n_words))
        (folder / f"{number}.txt").write_text("\n".join(words))
