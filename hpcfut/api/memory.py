"""What fills the memory: ``memory_summary``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hpcfut.api.session import current
from hpcfut.model.ids import name_of, owner_of
from hpcfut.model.inventory import HeldObject, Inventory, StoredCopy
from hpcfut.model.variables import SITES_VARIABLE

#: Lines of user code that are told of, those with the most bytes.
_N_SITES_MAX = 20
_HEADINGS = ("object", "owner", "size", "state", "stored on", "kept by", "made at")


class ObjectRecord(msgspec.Struct):
    """One object of the job, as all ranks together know it."""

    object_id: int
    owner: int
    #: "pending", "inline" (small, kept by its owner), "stored" or "failed"; "draft" for an array that is being built;
    #: "dropped" if its owner has collected it, but its memory is still used.
    state: str = "dropped"
    #: Of stored bytes.
    nbytes: int = 0
    #: The ranks that have its bytes in their memory, the one with the primary copy first.
    ranks: list[int] = []
    #: What keeps it, as phrases.
    reasons: list[str] = []
    #: The line of user code that made it, if lines are noted.
    site: str = ""


def records_of(inventories: Mapping[int, Inventory]) -> list[ObjectRecord]:
    """Every object that some rank holds, or has bytes of; the largest first."""
    records: dict[int, ObjectRecord] = {}

    def record_of(object_id: int) -> ObjectRecord:
        return records.setdefault(object_id, ObjectRecord(object_id, owner_of(object_id)))

    for rank, inventory in inventories.items():
        n_inside = Counter(object_id for held in inventory.held for object_id in held.contained)
        for held in inventory.held:
            _add_held(record_of(held.object_id), rank, held, n_inside[held.object_id])
        for copy in inventory.copies:
            _add_copy(record_of(copy.object_id), rank, copy)
    for inventory in inventories.values():
        for held in inventory.held:
            for object_id in held.contained:
                reason = f"inside {name_of(held.object_id)}"
                if object_id in records and reason not in records[object_id].reasons:
                    records[object_id].reasons.append(reason)
    for record in records.values():
        if not record.site and record.owner in inventories:
            record.site = inventories[record.owner].sites.get(record.object_id, "")
    return sorted(records.values(), key=lambda record: (-record.nbytes, record.object_id))


def _add_held(record: ObjectRecord, rank: int, held: HeldObject, n_inside: int) -> None:
    if rank == record.owner:
        record.state, record.site = held.state, held.site
        record.nbytes = max(record.nbytes, held.nbytes)
    # What is inside another value is said to be, below.
    n_others = max(held.n_others - n_inside, 0)
    record.reasons += _phrases(
        rank, {"ref": held.n_refs, "argument of unfinished task": held.n_tasks, "hold of hpcfut's": n_others}
    )
    record.reasons += [f"borrowed by rank {other}" for other in held.borrowers]


def _add_copy(record: ObjectRecord, rank: int, copy: StoredCopy) -> None:
    record.nbytes = max(record.nbytes, copy.nbytes)
    if copy.rank == rank:
        record.ranks.insert(0 if copy.is_primary else len(record.ranks), rank)
    if copy.state in ("draft", "writing"):
        record.state = "draft"
    record.reasons += _phrases(
        rank, {"argument of task there": copy.n_tasks, "view": copy.n_views, "transfer": copy.n_sends}
    )
    record.reasons += [f"lent by rank {rank} to rank {other}" for other in copy.lent]


def _phrases(rank: int, counts: Mapping[str, int]) -> Iterable[str]:
    return [f"{n} {what}{'s' * (n > 1)} on rank {rank}" for what, n in counts.items() if n]


def memory_summary(n_objects: int = 100) -> str:
    """What fills the memory of all ranks, and what keeps it there, as a text for people; asks every rank.

    For each rank what its object store has, uses and could still take in one piece, which share of what is free is in
    smaller pieces, and what it has in files. For each object its owner, its size, where it is stored and what keeps it:
    refs in user code, arguments of unfinished tasks, values that are built over it (views), ranks that read it. With
    ``HPCFUT_RECORD_REF_CREATION_SITES=1`` in the environment of all ranks also the line that made it, and for each line
    how many objects it has made that are still there, and how large they are together: what grows from one summary to
    the next is a leak. Ranks do not answer at the same instant, so that what changes meanwhile may not add up.

    Args:
        n_objects: How many objects are told one by one, the largest first.

    Example:
        >>> ref = hpcfut.put(bytes(1_000_000))
        >>> print(hpcfut.memory_summary().splitlines()[0])
        1 object is held by 1 rank
    """
    inventories = current().queries.inventories()
    records = records_of(inventories)
    n_ranks = len(inventories)
    are = "object is" if len(records) == 1 else "objects are"
    lines = [f"{len(records)} {are} held by {n_ranks} rank{'s' * (n_ranks != 1)}", ""]
    totals: list[tuple[str, ...]] = [("rank", "store", "used", "free", "largest hole", "fragmented", "spilled")]
    for rank, found in inventories.items():
        free = found.nbytes_store - found.nbytes_used
        sizes = map(_size, (found.nbytes_store, found.nbytes_used, free, found.nbytes_hole_max))
        totals.append((str(rank), *sizes, f"{found.fragmentation:.0%}", _size(found.nbytes_spilled)))
    lines += [*_table(totals), ""]
    if any(record.site for record in records):
        lines += [*_table(_rows_by_site(records)), ""]
    if records[:n_objects]:
        lines += _table([_HEADINGS, *map(_row, records[:n_objects])])
    if rest := records[n_objects:]:
        nbytes = sum(record.nbytes for record in rest)
        lines.append(f"and {len(rest)} more of {_size(nbytes)}: memory_summary(n_objects={len(records)}) tells of all.")
    if records and not any(record.site for record in records):
        lines += ["", f"{SITES_VARIABLE}=1 in the environment tells the lines that made them."]
    return "\n".join(lines).rstrip()


def _rows_by_site(records: Sequence[ObjectRecord]) -> list[tuple[str, ...]]:
    """For each line of user code what it has made, the most bytes first."""
    n_objects, nbytes = Counter[str](), Counter[str]()
    for record in records:
        n_objects[record.site or "(unknown)"] += 1
        nbytes[record.site or "(unknown)"] += record.nbytes
    sites = sorted(n_objects, key=lambda site: (-nbytes[site], -n_objects[site], site))
    rows = [(str(n_objects[site]), _size(nbytes[site]), site) for site in sites[:_N_SITES_MAX]]
    return [("objects", "size", "made at"), *rows]


def _row(record: ObjectRecord) -> tuple[str, ...]:
    ranks = ", ".join(map(str, record.ranks)) or "-"
    size = _size(record.nbytes) if record.nbytes else "-"
    reasons = "; ".join(record.reasons) or "-"
    return (name_of(record.object_id), str(record.owner), size, record.state, ranks, reasons, record.site or "-")


def _size(nbytes: int) -> str:
    amount, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
