"""One turn of a rank: events in, deadlines, effects out. The runtime and the simulator both use this and nothing else.

The order is fixed: what happened is told first, in the order in which it happened; then what is due is done; then the
caller performs the effects in their order, outside the core. So the core is never entered while it is inside.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpcfut.core.effects import Effect
from hpcfut.core.events import Event
from hpcfut.core.rank import RankCore


def take_turn(core: RankCore, events: Iterable[Event], now: float) -> list[Effect]:
    """Tell the core what happened and what time it is; returns everything that is to be done."""
    effects = core.handle_all(events, now)
    if core.context.due_at <= now:
        effects += core.reach_deadline(now)
    return effects
