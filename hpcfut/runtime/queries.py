"""Questions that every rank answers, or rank 0 for all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from hpcfut.core.events import Event, InventoriesQueried, QueryAbandoned, ResourcesQueried
from hpcfut.model.inventory import Inventory

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


class Queries:
    """Those of one session of one rank; each waits for its answer.

    Every method raises ``SessionEndedError`` when the session is over.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ids = count(1)

    def available_resources(self) -> dict[int, dict[str, int]]:
        """What is free on each rank now."""
        return self.ask(ResourcesQueried)  # type: ignore[no-any-return]

    def inventories(self) -> dict[int, Inventory]:
        """What each rank holds now."""
        return self.ask(InventoriesQueried)  # type: ignore[no-any-return]

    def ask(self, question: Callable[[int], Event], give_back: Callable[[Any], None] | None = None) -> Any:
        """Ask, and wait for the answer; ``question`` is given its id.

        ``give_back``, for questions about names: gives back what an answer brought that came as this was interrupted.
        """
        runtime, query_id = self._runtime, next(self._ids)
        runtime.demand_session()
        engine = runtime.engine
        waiter = engine.new_waiter()
        try:
            engine.post(question(query_id))
            while query_id not in engine.answers:
                if engine.end is not None:
                    runtime.demand_session()
                engine.wait(waiter, None)
                waiter.has_news = False
                runtime.demand_no_interruption()
            return engine.answers.pop(query_id).answers
        except BaseException:
            if give_back is not None and engine.end is None:
                engine.post_now(QueryAbandoned(query_id))
                answered = engine.answers.pop(query_id, None)
                if answered is not None:
                    give_back(answered.answers)
            raise
        finally:
            engine.forget(waiter)
