"""Questions that every rank answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcfut.core.effects import AnswerQuery
from hpcfut.core.events import InventoriesQueried, ResourcesQueried

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


def ask_ranks(runtime: Runtime, question: ResourcesQueried | InventoriesQueried) -> dict[int, Any]:
    """Ask, and wait for the answers of all ranks.

    Raises:
        SessionEndedError: The session is over.
    """
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
