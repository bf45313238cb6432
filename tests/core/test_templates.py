"""Functions: told to a rank before its first task, forgotten there when they are gone here."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import ForgetTemplate, RunTask
from hpcfut.core.events import ObjectPut, RunReturned, TemplateDropped
from hpcfut.model.errors import FrameRefusedError, InvariantError
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import (
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    TaskDone,
    TaskPushed,
    TemplateForgotten,
    TemplateRegistered,
)
from tests.core.cores import PLAIN, SMALL, MakeCore, foreign, of, only, sent


def closure_over(*object_ids: int) -> TaskTemplate:
    return TaskTemplate(9, "closure", b"", nested=object_ids)


def test_a_rank_is_told_once(make_core: MakeCore) -> None:
    hand = make_core()
    hand.submit(1)
    assert [type(message) for _, message in sent(hand.grant())] == [TemplateRegistered, TaskPushed]
    hand.get(1, TaskDone(hand.own(1), b""))
    assert [type(message) for _, message in sent(hand.submit(2))] == [TaskPushed]
    hand.get(1, TaskDone(hand.own(2), b""))
    hand.release(hand.own(1), hand.own(2))


def test_a_function_is_forgotten_with_its_last_task(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    assert hand.tell(TemplateDropped(PLAIN.template_id)) == []
    effects = hand.get(1, TaskDone(task, b""))
    assert sent(effects) == [(1, TemplateForgotten(PLAIN.template_id))]
    assert of(effects, ForgetTemplate) == [ForgetTemplate(PLAIN.template_id)]
    assert PLAIN.template_id not in hand.core.templates.own
    hand.release(task)


def test_a_function_that_was_never_called_is_forgotten_at_once(make_core: MakeCore) -> None:
    hand = make_core()
    assert hand.tell(TemplateDropped(PLAIN.template_id)) == [ForgetTemplate(PLAIN.template_id)]


def test_an_executor_forgets_when_it_is_told(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    assert hand.get(0, TemplateForgotten(PLAIN.template_id)) == [ForgetTemplate(PLAIN.template_id)]
    with pytest.raises(FrameRefusedError, match="KeyError"):
        hand.get(0, TemplateForgotten(PLAIN.template_id))


def test_refs_of_a_closure_live_with_it(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(5)
    hand.tell(ObjectPut(mine, SMALL))
    hand.define(closure_over(mine))
    hand.release(mine)
    hand.submit(1, closure_over(mine))
    assert only(hand.grant(), TemplateRegistered).template.nested == (mine,)
    assert hand.owned(5).borrowers == {(0, 1): 1}
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.tell(TemplateDropped(9))
    assert hand.owned(5).borrowers == {(0, 1): 1}, "Rank 1 has not let go."
    hand.get(1, BorrowReleased(mine, {0: 1}))
    hand.release(hand.own(1))


def test_the_owner_of_a_ref_in_a_closure_hears_of_the_executor(make_core: MakeCore) -> None:
    hand = make_core()
    theirs = foreign(2, 7)
    hand.define(closure_over(theirs))
    hand.submit(1, closure_over(theirs))
    assert (2, BorrowAdded(theirs, 1)) in sent(hand.grant())
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.tell(TemplateDropped(9))
    assert theirs in hand.core.borrowing.objects
    hand.get(2, BorrowConfirmed(theirs))
    assert theirs not in hand.core.borrowing.objects
    hand.release(hand.own(1))


def test_an_executor_holds_the_refs_of_a_closure_while_it_knows_it(make_core: MakeCore) -> None:
    hand = make_core(1)
    theirs = foreign(2, 7)
    hand.lend(closure_over(theirs))
    assert only(hand.accept(1, closure_over(theirs)), RunTask).template_id == 9
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert (2, BorrowReleased(theirs, {0: 1})) in sent(hand.get(0, TemplateForgotten(9)))


def test_a_call_of_a_function_that_was_dropped_raises(make_core: MakeCore) -> None:
    hand = make_core()
    hand.tell(TemplateDropped(PLAIN.template_id))
    with pytest.raises(KeyError):
        hand.submit(1)


def test_check_sees_a_function_that_was_not_forgotten(make_core: MakeCore) -> None:
    hand = make_core()
    record = hand.core.templates.own[PLAIN.template_id]
    record.is_dropped = True
    with pytest.raises(InvariantError, match="plain"):
        hand.core.check()
    record.is_dropped = False
