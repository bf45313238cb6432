"""The trace of a simulation: a line for all that a rank hears, tells or does; and the story of one object or task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from hpcfut.core.effects import Effect, SendMessage
from hpcfut.core.events import Event, FrameReceived, RankLost
from hpcfut.model.errors import HpcfutError
from hpcfut.model.ids import name_of
from hpcfut.wire.messages import Message

INDENT = 4

#: Fields that are told even where they are 0, because rank 0 is a rank.
PLACES = ("rank", "affinity", "replaces")

#: Fields that hold ids, and not counts.
NAMES = (
    *("object_id", "object_ids", "task_id", "task_ids", "template_id", "return_ids", "item_ids", "parent"),
    *("arguments", "nested", "contained", "borrowed"),
)


class RankStarted(msgspec.Struct):
    """Here and now the rank begins, in the place of another one."""

    replaces: int


class RankDied(msgspec.Struct):
    """Here and now the rank dies."""


class NeverHeard(msgspec.Struct):
    """A rank has sent this and died, and it is lost."""

    source: int
    messages: list[Message]


Happening = Event | RankStarted | RankDied | NeverHeard
Entry = tuple[float, int, Sequence[Happening], Sequence[Effect]]


class SimulationError(HpcfutError):
    """A checker found something wrong; the text says what, with the seed and the story of ``ids``."""

    def __init__(self, text: str, ids: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.ids = tuple(ids)


class Trace:
    """What every rank was told and answered, kept as records and put into words only when somebody asks."""

    def __init__(self, n_ranks: int) -> None:
        self.n_ranks = n_ranks
        self.entries: list[Entry] = []

    def lines(self, about: int = 0) -> Iterator[str]:
        """The trace as text; only what mentions this id, if one is given, and the deaths."""
        for at, rank, events, effects in self.entries:
            for verb, record in _said(events, effects):
                if not about or isinstance(record, RankStarted | RankDied | RankLost) or about in ids_in(record):
                    yield f"{at * 1e3:11.3f} ms  {' ' * INDENT * rank}{rank} {verb} {describe(record)}"

    def digest(self) -> str:
        """One number for the whole trace: equal traces, equal digests."""
        hasher = hashlib.sha256()
        for line in self.lines():
            hasher.update(line.encode())
        return hasher.hexdigest()

    def story(self, ids: Iterable[int], n_last: int = 40) -> str:
        """The story of each of these ids, then the last lines of all."""
        parts = []
        for some_id in ids:
            parts.append(f"The story of {name_of(some_id)}:")
            parts.extend(self.lines(some_id))
        parts.append("The last events:")
        parts.extend(list(self.lines())[-n_last:])
        return "\n".join(parts)


def _said(events: Sequence[Happening], effects: Sequence[Effect]) -> Iterator[tuple[str, object]]:
    """What a rank heard and did in one turn, message by message."""
    for event in events:
        if isinstance(event, FrameReceived):
            for message in event.messages:
                yield f"hears from {event.source}:", message
        elif isinstance(event, NeverHeard):
            for message in event.messages:
                yield f"will never hear from {event.source}:", message
        elif isinstance(event, RankDied):
            yield "dies:", event
        elif isinstance(event, RankStarted):
            yield "starts:", event
        else:
            yield "hears", event
    for effect in effects:
        if isinstance(effect, SendMessage):
            yield f"tells {effect.rank}:", effect.message
        else:
            yield "does", effect


def describe(record: object, field: str = "") -> str:
    """A record in words: its name, then what is set, with ids as people write them."""
    if isinstance(record, msgspec.Struct):
        fields = []
        for name in record.__struct_fields__:
            value = getattr(record, name)
            is_set = value >= 0 if name in PLACES else value not in (None, (), [], {}, b"", "", False)
            if is_set:
                fields.append(f"{name}={describe(value, name)}")
        return f"{type(record).__name__}({', '.join(fields)})"
    if isinstance(record, bool):
        return "yes" if record else "no"
    if isinstance(record, int):
        return name_of(record) if field in NAMES else str(record)
    if isinstance(record, bytes):
        return record[:32].decode("latin1")
    if isinstance(record, list | tuple):
        return f"[{' '.join(describe(item, field) for item in record)}]"
    if isinstance(record, dict):
        return "{" + " ".join(f"{key}:{describe(value)}" for key, value in record.items()) + "}"
    if isinstance(record, float):
        return f"{record:.6f}"
    return str(record)


def ids_in(record: object, field: str = "") -> set[int]:
    """All ids that occur in a record."""
    if isinstance(record, int):
        return {record} if field in NAMES else set()
    found: set[int] = set()
    if isinstance(record, msgspec.Struct):
        for name in record.__struct_fields__:
            found |= ids_in(getattr(record, name), name)
    elif isinstance(record, list | tuple):
        for item in record:
            found |= ids_in(item, field)
    return found
