"""Questions that every rank answers."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from hpcfut.core.effects import AnswerQuery
from hpcfut.core.events import InventoriesQueried, ResourcesQueried
from hpcfut.model.inventory import Inventory

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


class Queries:
    """Those of one session of one rank; each waits for the answers of all ranks.

    Every method raises ``SessionEndedError`` when the session is over.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ids = count(1)

    def available_resources(self) -> dict[int, dict[str, int]]:
        """What is free on each rank now."""
        return self._ask(ResourcesQueried(next(self._ids)))

    def inventories(self) -> dict[int, Inventory]:
        """What each rank holds now."""
        return self._ask(InventoriesQueried(next(self._ids)))

    def _ask(self, question: ResourcesQueried | InventoriesQueried) -> dict[int, Any]:
        runtime = self._runtime
        runtime.demand_session()
        engine = runtime.engine
        waiter = engine.new_waiter()
        try:
            engine.post(question)
            while question.query_id not in engine.answers:
                if engine.end is not None:
                    runtime.demand_session()
                engine.wait(waiter, None)
                waiter.has_news = False
                runtime.demand_no_interruption()
            answer: AnswerQuery = engine.answers.pop(question.query_id)
            return answer.answers
        finally:
            engine.forget(waiter)
