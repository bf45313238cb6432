"""Locality: tasks go where their argument bytes are, unless too many are there already."""

from __future__ import annotations

import msgspec
import pytest

from hpcfut.core.effects import Effect, RunTask, SendObject, StartRead
from hpcfut.core.events import CancelRequested, ObjectPut, ReadCompleted, RoomWanted, RunReturned, SendCompleted
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import (
    CopyGone,
    LeaseGranted,
    ObjectFreed,
    ReadRequested,
    Result,
    TaskDone,
    TaskReturned,
    TasksHandedBack,
)
from tests.core.cores import LARGE, PLAIN, SMALL, Hand, MakeCore, asked, foreign, of, only, pushed, sent

SPREAD = TaskTemplate(7, "spread", b"", spread=True)
#: Ids of objects begin here, those of tasks at 1.
FIRST_OBJECT = 50


def store(hand: Hand, rank: int, nbytes: int = 10**6) -> int:
    """An object of this size is stored on another rank; gives its id. The rank says that it has nothing to do."""
    n = FIRST_OBJECT + len(hand.core.ownership.objects)
    maker = msgspec.structs.replace(PLAIN, template_id=FIRST_OBJECT + rank, affinity=rank)
    hand.define(maker)
    effects = hand.submit(n, maker)
    if asked(effects):
        hand.get(rank, LeaseGranted(max(hand.core.leases.leases), 256))
    hand.get(rank, TaskReturned(hand.own(n), (Result(None, nbytes),)))
    return hand.own(n)


def end(hand: Hand, *tasks: tuple[int, int]) -> None:
    """These tasks, told with their ranks, end; and all refs are dropped."""
    for rank, task in tasks:
        hand.get(rank, TaskDone(task, b""))
    hand.release(*hand.core.ownership.objects)


def lease_on(hand: Hand, rank: int, depth: int) -> list[Effect]:
    """The lease of the plain functions on a rank is opened, deepened or closed."""
    (queue,) = (queue for key, queue in hand.core.leases.queues.items() if key == PLAIN.key)
    return hand.get(rank, LeaseGranted(queue.leases[rank].lease_id, depth))


def test_the_rank_that_holds_the_bytes_is_asked_and_sent_the_task(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4)
    there = store(hand, 3)
    assert asked(hand.submit(1, arguments=(there,))) == [3], "Without it that would be rank 1."
    assert pushed(lease_on(hand, 3, 8)) == [(3, hand.own(1))]
    also = store(hand, 2)
    assert asked(hand.submit(2, arguments=(also,))) == [2], "The room that there is on rank 3 is not what it wants."
    assert pushed(hand.submit(3, arguments=(there,))) == [(3, hand.own(3))]
    assert pushed(lease_on(hand, 2, 8)) == [(2, hand.own(2))]
    assert pushed(hand.submit(4)) == [(3, hand.own(4))], "Others go on in turn."
    end(hand, *((3, hand.own(n)) for n in (1, 3, 4)), (2, hand.own(2)))


def test_most_bytes_count_and_those_of_one_host_together(make_core: MakeCore) -> None:
    for hosts, rank in (("aaaa", 3), ("aabb", 3), ("abbc", 1)):
        hand = make_core(n_ranks=4, hosts=hosts)
        objects = (store(hand, 1, 300_000), store(hand, 2, 200_000), store(hand, 3, 400_000))
        assert asked(hand.submit(1, arguments=objects)) == [rank], hosts
        assert pushed(lease_on(hand, rank, 1)) == [(rank, hand.own(1))]
        end(hand, (rank, hand.own(1)))


def test_a_task_that_waits_for_its_argument_goes_to_it(make_core: MakeCore) -> None:
    hand = make_core()
    maker = msgspec.structs.replace(PLAIN, template_id=9, affinity=2)
    hand.define(maker)
    hand.submit(1, maker)
    hand.grant(2)
    assert hand.submit(2, arguments=(hand.own(1),)) == []
    assert asked(hand.get(2, TaskReturned(hand.own(1), (Result(None, 10**6),)))) == [2]
    assert pushed(lease_on(hand, 2, 1)) == [(2, hand.own(2))]
    end(hand, (2, hand.own(2)))


def test_small_arguments_and_spread_calls_change_nothing(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(SPREAD)
    there = store(hand, 2)
    small = hand.own(1)
    hand.submit(1)
    hand.get(1, LeaseGranted(max(hand.core.leases.leases), 8), TaskDone(small, b"small"))
    assert pushed(hand.submit(2, arguments=(small,))) == [(1, hand.own(2))]
    assert asked(hand.submit(3, SPREAD, arguments=(there,))) == [1]
    hand.get(1, LeaseGranted(max(hand.core.leases.leases), 1))
    end(hand, (1, hand.own(2)), (1, hand.own(3)))


def test_a_queue_that_is_more_than_two_longer_is_left_to_itself(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1)
    hand.submit(2)
    lease_on(hand, 1, 9)
    hand.submit(3, arguments=(there,))
    lease_on(hand, 2, 9)
    hand.get(1, TaskDone(hand.own(1), b""), TaskDone(hand.own(2), b""))
    went = [pushed(hand.submit(n, arguments=(there,)))[0][0] for n in range(4, 9)]
    assert went == [2, 2, 1, 2, 1], "There are 3 then; 4 on rank 2 and 1 on rank 1; and so on."
    end(hand, (2, hand.own(3)), *zip(went, map(hand.own, range(4, 9)), strict=True))


def send_once(hand: Hand, rank: int, n: int, argument: int) -> None:
    """A task that only this rank can run has the argument, and ends."""
    bound = msgspec.structs.replace(PLAIN, template_id=FIRST_OBJECT + 10 + rank, affinity=rank)
    hand.define(bound)
    effects = hand.submit(n, bound, arguments=(argument,))
    if asked(effects):
        hand.get(rank, LeaseGranted(max(hand.core.leases.leases), 1))
    hand.get(rank, TaskDone(hand.own(n), b""))


def fill(hand: Hand, rank: int, there: int, n_tasks: int) -> list[tuple[int, int]]:
    """All leases are open, and so many tasks are on the rank; gives them."""
    for n in (2, 3, 4):
        hand.submit(n)
    for other in (1, 2, 3):
        lease_on(hand, other, 9)
    hand.get(1, *(TaskDone(hand.own(n), b"") for n in (2, 3, 4)))
    went = [(rank, hand.own(n)) for n in range(5, 5 + n_tasks)]
    for _, task in went:
        assert pushed(hand.submit(task - hand.own(0), arguments=(there,))) == [(rank, task)]
    return went


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("holder", [0, 1])
def test_a_host_that_has_read_the_bytes_takes_what_is_too_much_for_their_holder(
    make_core: MakeCore, holder: int, is_gone: bool
) -> None:
    hand = make_core(n_ranks=4, hosts="abcd" if holder else "aabc")
    if holder:
        there = store(hand, 1)
    else:
        there = hand.own(FIRST_OBJECT)
        hand.tell(ObjectPut(there, LARGE))
    send_once(hand, 3, 1, there)
    assert list(hand.core.ownership.objects[there].keepers or ()) == [3]
    if is_gone:
        hand.get(holder or 3, CopyGone(there, 3))
        assert not hand.core.ownership.objects[there].keepers
    else:
        hand.get(holder or 3, CopyGone(there, 2))  # That is another host.
    if holder:
        went = fill(hand, 1, there, 3)
        (last,) = pushed(hand.submit(8, arguments=(there,)))
        assert last[0] == (2 if is_gone else 3), "Rank 2 was used longest ago."
        end(hand, *went, last)
    else:
        hand.release(there, hand.own(1))


def test_what_others_have_read_is_told_to_the_owner_when_it_goes(make_core: MakeCore) -> None:
    # Rank 1 stores what rank 0 owns, and rank 2 has read it.
    hand = make_core(1, n_ranks=3, hosts="abc")
    result = foreign(0, 9)
    hand.lend()
    hand.tell(RoomWanted(7, result, LARGE.nbytes))
    hand.accept(9)
    hand.tell(RunReturned(result, (LARGE,)))
    assert of(hand.get(2, ReadRequested(result, 1)), SendObject)
    hand.tell(SendCompleted(result))
    assert (0, CopyGone(result, 2)) in sent(hand.get(2, CopyGone(result, 2)))
    hand.get(0, ObjectFreed(result))


def test_a_full_rank_is_waited_for_by_two(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1, arguments=(there,))
    assert pushed(lease_on(hand, 2, 1)) == [(2, hand.own(1))]
    for n in (2, 3, 4):
        assert pushed(hand.submit(n, arguments=(there,))) == []
    assert pushed(lease_on(hand, 1, 9)) == [(1, hand.own(4))]
    for before, after in ((1, 2), (2, 3)):
        assert pushed(hand.get(2, TaskDone(hand.own(before), b""))) == [(2, hand.own(after))]
    end(hand, (2, hand.own(3)), (1, hand.own(4)))


def test_who_has_room_takes_from_a_line_that_is_too_long(make_core: MakeCore) -> None:
    hand = make_core(hosts="abc")
    there = store(hand, 2)
    for n in range(1, 6):
        hand.submit(n, arguments=(there,))
    assert pushed(lease_on(hand, 1, 9)) == [(1, hand.own(1)), (1, hand.own(2))], "Then there are 3 and 2."
    assert pushed(lease_on(hand, 2, 2)) == [(2, hand.own(3)), (2, hand.own(4))]
    assert pushed(hand.get(1, TaskDone(hand.own(1), b""), TaskDone(hand.own(2), b""))) == [(1, hand.own(5))]
    end(hand, (1, hand.own(5)), (2, hand.own(3)), (2, hand.own(4)))


def test_an_older_task_that_can_run_anywhere_goes_first(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=2)
    there = store(hand, 1)
    hand.submit(1, arguments=(there,))
    lease_on(hand, 1, 1)
    hand.submit(2, arguments=(there,))
    hand.submit(3)
    hand.submit(4, arguments=(there,))
    went = [hand.own(1)]
    while len(went) < 4:
        ((_, task),) = pushed(hand.get(1, TaskDone(went[-1], b"")))
        went.append(task)
    assert went == [hand.own(n) for n in (1, 2, 3, 4)]
    end(hand, (1, went[-1]))


def test_a_rank_that_closes_its_lease_is_not_waited_for(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1, arguments=(there,))
    lease_on(hand, 2, 1)
    hand.submit(2, arguments=(there,))
    hand.submit(3)
    assert pushed(lease_on(hand, 1, 9)) == [(1, hand.own(3))]
    assert pushed(lease_on(hand, 2, 0)) == [(1, hand.own(2))], "What runs there takes long."
    assert pushed(hand.submit(4, arguments=(there,))) == [(1, hand.own(4))]
    handed_back = hand.get(2, TasksHandedBack(1, (hand.own(1),)))
    assert pushed(handed_back) == [(1, hand.own(1))]
    end(hand, *((1, hand.own(n)) for n in (1, 2, 3, 4)))


def test_a_rank_that_does_not_answer_is_waited_for_only_so_long(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1)
    lease_on(hand, 1, 9)
    wait_s = hand.core.context.config.hand_back_after_s
    assert asked(hand.submit(2, arguments=(there,))) == [2]
    assert hand.wait(0.9 * wait_s) == []
    assert hand.submit(3, arguments=(there,)) == []
    assert pushed(hand.wait(0.1 * wait_s)) == [(1, hand.own(2)), (1, hand.own(3))]
    assert pushed(hand.submit(4, arguments=(there,))) == [(1, hand.own(4))], "Nor is it waited for again,"
    lease_on(hand, 2, 1)
    assert pushed(hand.submit(5, arguments=(there,))) == [(2, hand.own(5))], "before it has answered."
    end(hand, *((1, hand.own(n)) for n in (1, 2, 3, 4)), (2, hand.own(5)))


def test_a_busy_rank_gives_way_to_its_neighbours(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=5, hosts="abcbb")
    there = store(hand, 1)
    hand.get(1, load=1000)
    hand.get(3, load=1)
    assert asked(hand.submit(1, arguments=(there,))) == [4], "It is on the host, and has the least to do."
    assert pushed(lease_on(hand, 4, 1)) == [(4, hand.own(1))]
    end(hand, (4, hand.own(1)))


def test_where_all_ranks_are_neighbours_a_busy_one_is_like_any_other(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1)
    lease_on(hand, 1, 9)
    hand.get(2, load=1000)
    assert pushed(hand.submit(2, arguments=(there,))) == [(1, hand.own(2))]
    end(hand, (1, hand.own(1)), (1, hand.own(2)))


def test_who_waits_for_a_task_runs_it_only_when_no_rank_near_its_arguments_will(make_core: MakeCore) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1, arguments=(there,))
    assert not of(hand.start_waiting(hand.own(1), may_run=True), RunTask)
    effects = hand.wait(hand.core.context.config.hand_back_after_s)
    only(effects, StartRead)
    hand.tell(ReadCompleted(1))
    hand.tell(RunReturned(hand.own(1), (SMALL,)))
    end(hand)


@pytest.mark.parametrize("is_opened", [False, True])
def test_a_task_that_waits_for_a_rank_can_be_cancelled(make_core: MakeCore, is_opened: bool) -> None:
    hand = make_core()
    there = store(hand, 2)
    hand.submit(1, arguments=(there,))
    hand.submit(2, arguments=(there,))
    hand.tell(CancelRequested(hand.own(1), False))
    if is_opened:
        assert pushed(lease_on(hand, 2, 1)) == [(2, hand.own(2))]
        end(hand, (2, hand.own(2)))
    else:
        hand.tell(CancelRequested(hand.own(2), False))
        hand.wait(hand.core.context.config.lease_linger_s)
        end(hand)


def test_what_a_driver_holds_waits_for_the_driver(make_core: MakeCore) -> None:
    """Its rank takes no task while it computes; when it waits for the task, it runs it."""
    for waits in (True, False):
        hand = make_core(n_ranks=2, hosts="ab")
        hand.tell(ObjectPut(hand.own(FIRST_OBJECT), LARGE))
        assert hand.submit(1, arguments=(hand.own(FIRST_OBJECT),)) == []
        if waits:
            only(hand.start_waiting(hand.own(1), may_run=True), RunTask)
            hand.tell(RunReturned(hand.own(1), (SMALL,)))
            end(hand)
        else:
            assert asked(hand.wait(hand.core.context.config.hand_back_after_s)) == [1]
            lease_on(hand, 1, 1)
            end(hand, (1, hand.own(1)))
