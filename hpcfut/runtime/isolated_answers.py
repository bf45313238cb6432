"""What the code of an isolated task wants of hpcfut, done by the thread of the rank that has the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from hpcfut.core.events import ObjectPut, TaskSubmitted, TemplateDefined
from hpcfut.wire.isolation import (
    Answered,
    CancelWanted,
    FunctionMade,
    Made,
    ObjectMade,
    Question,
    Refused,
    TaskMade,
    encode,
)
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.runtime.engine import Engine
    from hpcfut.runtime.isolated_child import IsolatedChild
    from hpcfut.runtime.runtime import Runtime

Store = Callable[["IsolatedChild", int, Made], Result]


def answer(runtime: Runtime, worker: IsolatedChild, task_id: int, question: Question, store: Store) -> None:
    """Do what the code of this task wants, and tell its child what came of that, or what it raised.

    Raises:
        EOFError: The child is gone.
    """
    payloads: list[bytes | memoryview] = []
    told: Answered | Refused
    try:
        told = _answer(runtime, worker, task_id, question, store, payloads)
    except EOFError:
        raise
    except Exception as error:
        told, payloads = Refused(runtime.pickling.dumps_exception(error.with_traceback(None))), []
    worker.channel.send(encode(told), payloads)


def _answer(
    runtime: Runtime,
    worker: IsolatedChild,
    task_id: int,
    question: Question,
    store: Store,
    payloads: list[bytes | memoryview],
) -> Answered:
    engine = runtime.engine
    if isinstance(question, ObjectMade):
        object_id = next(runtime._ids)
        engine.post(ObjectPut(object_id, store(worker, object_id, question.made)))
        worker.hold_new([object_id])
        return Answered([object_id])
    runtime.demand_session()
    if isinstance(question, TaskMade):
        new_id, *_ = ids = [next(runtime._ids) for _ in range(question.n_returns or 1)]
        return_ids = tuple(ids) if question.n_returns else ()
        made = TaskSubmitted(
            new_id, question.template_id, question.payload, return_ids, question.arguments, question.nested, task_id
        )
        engine.post_soon(made)
        worker.hold_new(list(return_ids))
        return Answered(list(return_ids))
    if isinstance(question, FunctionMade):
        template_id = next(runtime._template_ids)
        engine.post(TemplateDefined(msgspec.structs.replace(question.template, template_id=template_id)))
        worker.own_templates[template_id] = None
        return Answered([template_id])
    if isinstance(question, CancelWanted):
        runtime.cancel(question.object_id, is_recursive=question.is_recursive, is_forced=question.is_forced)
        return Answered([])
    # With a task on its stack this thread could not leave the wait when the child ends.
    is_fetching, is_taking = question.is_fetching, question.is_taking
    ready = runtime.wait(
        question.object_ids, question.n_wanted, question.timeout_s, is_fetching, is_taking, is_free=False
    )
    if ready is None:
        return Answered([], is_done=False)
    values = [worker.show(value, payloads) for value in ready.values] if is_taking else []
    return Answered(ready.object_ids, list(values))


def demand_isolated(engine: Engine, object_id: int) -> None:
    """See to it that the task that makes this object, if it is one of this rank's that has not ended, has a process.

    Raises:
        ValueError: It has not.
    """
    engine.hear_now()
    core = engine.core
    record = core.ownership.objects.get(object_id)
    task = core.tasks.tasks.get(record.task_id if record is not None else object_id)
    if task is not None and not task.template.template.is_isolated:
        raise ValueError(
            "cancel(force=True) ends the process of a task, and the tasks of a rank share one process, which is the "
            'rank. It needs a task with isolation="process"; cancel this one without force.'
        )
