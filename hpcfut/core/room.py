"""What gives a run the right to run: the scheduler, or an actor that lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hpcfut.core.run import Run


class Room(Protocol):
    """What runs.py asks of either."""

    @property
    def has_work(self) -> bool:
        """Whether an end of a run may let others begin that ``succeed`` does not find."""

    @property
    def is_full(self) -> bool:
        """Whether nothing new may begin, because so many wait."""

    def start(self, run: Run) -> None:
        """A run begins."""

    def end(self, run: Run) -> None:
        """A run that had begun has ended."""

    def succeed(self, run: Run) -> Run | None:
        """A run ends, and the next takes its place over; None where that needs a closer look."""

    def add_ready(self, run: Run) -> None:
        """A run has all its arguments."""

    def remove_ready(self, run: Run) -> None:
        """A ready run will not begin, or not yet, or on the stack of whoever waits for it."""

    def block(self, run: Run) -> None:
        """A run waits."""

    def unblock(self, run: Run) -> None:
        """A run goes on."""
