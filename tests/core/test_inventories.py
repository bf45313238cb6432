"""What a rank tells of the objects that it holds, and of why it holds them."""

from __future__ import annotations

from hpcfut.core.effects import AnswerQuery
from hpcfut.core.events import InventoriesQueried, ObjectPut, RefsAdded, SiteNoted
from hpcfut.model.inventory import HeldObject, Inventory, StoredCopy
from hpcfut.wire.messages import Result
from hpcfut.wire.queries import InventoryAsked, InventoryReported
from tests.core.cores import LARGE, Hand, MakeCore, foreign, only, sent

NOTHING = Inventory(0, 0, 0, 0.0, 0, (), ())


def ask(hand: Hand, query_id: int = 5) -> Inventory:
    (effect,) = hand.get(2, InventoryAsked(query_id))
    message = only([effect], InventoryReported)
    assert message.query_id == query_id
    return message.inventory


def test_every_rank_is_asked(make_core: MakeCore) -> None:
    hand = make_core()
    assert sent(hand.tell(InventoriesQueried(5))) == [(1, InventoryAsked(5)), (2, InventoryAsked(5))]
    assert hand.get(2, InventoryReported(5, NOTHING)) == []
    answer = only(hand.get(1, InventoryReported(5, NOTHING)), AnswerQuery)
    assert list(answer.answers) == [0, 1, 2]


def test_objects_are_told_with_what_keeps_them(make_core: MakeCore) -> None:
    hand = make_core()
    hand.may_keep = True
    mine, holder, theirs = hand.own(1), hand.own(2), foreign(1, 7)
    hand.tell(ObjectPut(mine, LARGE), ObjectPut(holder, Result(b"small", 5, (mine,))), RefsAdded([theirs]))
    hand.tell(SiteNoted((mine,), "script.py:3 in main"))
    task_id = hand.push_to_1(3, arguments=(mine,))
    found = ask(hand)
    held = {one.object_id: one for one in found.held}
    assert held[mine] == HeldObject(mine, "stored", LARGE.nbytes, 0, 1, 1, 1, (), (), "script.py:3 in main")
    assert held[holder] == HeldObject(holder, "inline", 0, -1, 1, 0, 0, (), (mine,), "")
    assert held[task_id].state == "pending"
    assert held[theirs].n_refs == 1
    assert found.copies == (StoredCopy(mine, "local", LARGE.nbytes, 0, True, 0, 0, 0, ()),)
    assert found.nbytes_used >= LARGE.nbytes


def test_notes_of_objects_that_others_may_still_view_are_told(make_core: MakeCore) -> None:
    hand = make_core()
    gone, kept = hand.own(1), hand.own(2)
    hand.tell(ObjectPut(gone, LARGE), ObjectPut(kept, LARGE), SiteNoted((gone, kept), "script.py:3 in main"))
    hand.release(gone)
    found = ask(hand)
    assert [one.site for one in found.held] == ["script.py:3 in main"]
    assert found.sites == {gone: "script.py:3 in main"}
    hand.release(kept)


def test_notes_of_objects_that_are_gone_do_not_pile_up(make_core: MakeCore) -> None:
    hand = make_core()
    kept = hand.own(1)
    hand.tell(ObjectPut(kept, LARGE))
    hand.tell(SiteNoted((kept,), "kept"))
    for n in range(2, 3000):
        hand.tell(SiteNoted((hand.own(n),), "gone"))
    assert len(hand.core.inventories._sites) < 2000
    assert ask(hand).held[0].site == "kept"
    hand.release(kept)
