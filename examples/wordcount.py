"""Counts the words of text files: map, shuffle by hash, and reduce, all of them tasks.

    python examples/wordcount.py DIR...
    hpcfut run -n 4 examples/wordcount.py DIR... --verify

A map task counts the words of some files and returns one counter per reduce task; reduce task r
merges the r-th counter of every map task. The script passes references and never fetches a counter.
"""

import argparse
import hashlib
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import hpcfut

WORD = re.compile(r"[^\W\d_]+")


class Files(NamedTuple):
    """What was read."""

    nbytes: int
    unreadable: tuple[str, ...]


class Summary(NamedTuple):
    """What the script needs to know of the counts of many words."""

    n_words: int
    n_distinct: int
    digest: int
    top: list[tuple[str, int]]


def count_words(paths: Iterable[Path]) -> tuple[Counter[str], Files]:
    words: Counter[str] = Counter()
    nbytes, unreadable = 0, []
    for path in paths:
        try:
            text = path.read_bytes()
        except OSError:
            unreadable.append(str(path))
            continue
        nbytes += len(text)
        words.update(WORD.findall(text.decode("utf-8", errors="replace").lower()))
    return words, Files(nbytes, tuple(unreadable))


def split(words: Counter[str], n_parts: int) -> list[Counter[str]]:
    """Every rank puts a word into the same part: `hash` of a string differs between processes."""
    parts: list[Counter[str]] = [Counter() for _ in range(n_parts)]
    for word, n in words.items():
        parts[zlib.crc32(word.encode()) % n_parts][word] = n
    return parts


def summarize(words: Counter[str], top: int) -> Summary:
    digest = 0
    for word, n in words.items():
        digest += int.from_bytes(hashlib.blake2b(f"{word} {n}".encode(), digest_size=8).digest())
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return Summary(words.total(), len(words), digest % 2**64, ranked[:top])


def join(parts: Iterable[Summary], top: int) -> Summary:
    """The summary of all words from those of parts that share no word: digests add up."""
    n_words, n_distinct, digests, tops = zip(*parts, strict=True)
    ranked = sorted((item for some in tops for item in some), key=lambda item: (-item[1], item[0]))
    return Summary(sum(n_words), sum(n_distinct), sum(digests) % 2**64, ranked[:top])


@hpcfut.remote
def map_files(paths: Sequence[Path], n_parts: int) -> tuple[Any, ...]:
    words, files = count_words(paths)
    return files, *split(words, n_parts)


@hpcfut.remote
def reduce_parts(top: int, *parts: Counter[str]) -> Summary:
    words: Counter[str] = Counter()
    for part in parts:
        words.update(part)
    return summarize(words, top)


def count_in_tasks(paths: Sequence[Path], n_maps: int, n_reduces: int, top: int) -> tuple[Summary, Files]:
    mapper = map_files.options(num_returns=1 + n_reduces)
    maps = [mapper.remote(paths[i::n_maps], n_reduces) for i in range(n_maps)]
    read, *parts = zip(*maps, strict=True)
    reduced = [reduce_parts.remote(top, *column) for column in parts]
    waiting = [*read, *reduced]
    with tqdm(total=len(waiting), unit="task", disable=None) as bar:
        while waiting:
            ready, waiting = hpcfut.wait(waiting, num_returns=1)
            bar.update(len(ready))
    files: list[Files] = hpcfut.get(list(read))
    unreadable = tuple(path for some in files for path in some.unreadable)
    return join(hpcfut.get(reduced), top), Files(sum(some.nbytes for some in files), unreadable)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the words of text files with tasks.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--pattern", default="*.py", help="which files (default: %(default)s)")
    parser.add_argument("--exclude", action="append", default=[], metavar="NAME", help="leave out folders of this name")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="how many words to print")
    parser.add_argument("--maps", type=int, metavar="M", help="map tasks (default: 4 a rank)")
    parser.add_argument("--reduces", type=int, metavar="R", help="reduce tasks (default: 1 a rank)")
    parser.add_argument("--verify", action="store_true", help="compare with a serial count")
    options = parser.parse_args()
    if min(options.top, options.maps or 1, options.reduces or 1) < 1:
        parser.exit(2, "--top, --maps and --reduces must be at least 1.\n")
    for folder in options.folders:
        if not folder.is_dir():
            parser.exit(2, f"There is no folder {folder}.\n")
    found = {
        path.resolve()
        for folder in options.folders
        for path in folder.rglob(options.pattern)
        if not set(options.exclude).intersection(path.relative_to(folder).parts[:-1])
    }
    sizes = {path: path.stat().st_size for path in found if path.is_file()}
    if not sizes:
        where = ", ".join(map(str, options.folders))
        parser.exit(2, f"No file in {where} matches {options.pattern}: name another --pattern.\n")
    # Largest first and dealt in turn, every map task gets about as much to read.
    paths = sorted(sizes, key=lambda path: (-sizes[path], path))

    started = time.perf_counter()
    nodes = hpcfut.nodes()
    n_maps = min(options.maps or 4 * len(nodes), len(paths))
    counted, files = count_in_tasks(paths, n_maps, options.reduces or len(nodes), options.top)
    duration_s = time.perf_counter() - started

    n_hosts = len({node["Host"] for node in nodes})
    print(f"\n{'word':<24}{'count':>12}")
    for word, n in counted.top:
        print(f"{word:<24}{n:>12,}")
    print(
        f"\n{counted.n_words:,} words, {counted.n_distinct:,} of them distinct, in {len(paths):,} "
        f"files\n{files.nbytes / 1e6:.1f} MB in {duration_s:.2f} s on {len(nodes)} rank(s) of "
        f"{n_hosts} host(s): {files.nbytes / 1e6 / duration_s:.1f} MB/s"
    )
    if files.unreadable:
        print(f"{len(files.unreadable)} files could not be read, {files.unreadable[0]} among them.")
    if options.verify:
        words, _ = count_words(paths)
        if summarize(words, options.top) != counted:
            sys.exit("The serial count of the same files differs from what the tasks counted.")
        print("A serial count of the same files agrees.")


if __name__ == "__main__":
    main()
