"""One large object for many ranks: it crosses to each host once, whatever becomes of the rank that read it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcfut.core.events import RoomReturned, RoomWanted
from hpcfut.model.failure import INTERNAL, Failure
from hpcfut.wire.messages import CopyGone, LoanRequested, ReadRedirected, ReadRefused
from tests.protocol.wired import NBYTES_LARGE, Ranks

BROKEN_LINK = Failure(INTERNAL, "The link broke.")
MakeRanks = Callable[..., Ranks]


class Shared:
    """``ref = put(large); tasks = [f.remote([ref]) for f in …]``: a task on each of some ranks holds the ref."""

    def __init__(self, ranks: Ranks, readers: Sequence[int]) -> None:
        self.ranks = ranks
        self.ref = ranks.put(0, b"large", is_large=True)
        self.tasks = {rank: ranks.call(ranks.function(on=rank), nested=(self.ref,)) for rank in readers}
        for rank in readers:
            ranks.hold(rank, self.ref)

    def get(self, *readers: int) -> list[int]:
        """The tasks on these ranks call ``get(ref)``; gives the names of the waits."""
        return [self.ranks.get(rank, self.ref) for rank in readers]

    def is_read(self, *waits: int) -> bool:
        """Whether all of these have got it."""
        return all(wait in self.ranks.woken for wait in waits)

    def evict(self, rank: int) -> None:
        """Somebody on this rank takes all room for a while."""
        other = self.ranks.new_id(rank)
        self.ranks.tell(rank, RoomWanted(9, other, NBYTES_LARGE))
        assert (rank, self.ref) not in self.ranks.segments
        self.ranks.tell(rank, RoomReturned(other))

    def leave(self, rank: int) -> None:
        """The task on this rank drops the ref and returns."""
        self.ranks.drop(rank, self.ref)
        task = self.tasks.pop(rank)
        self.ranks.returns(task)
        self.ranks.drop(0, task)

    def end(self) -> None:
        """So do all others, and the driver drops it, too."""
        for rank in list(self.tasks):
            self.leave(rank)
        self.ranks.drop(0, self.ref)
        assert not self.ranks.segments


def test_one_rank_reads_for_its_host(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, hosts="abbb")
    shared = Shared(ranks, (1, 2, 3))
    ranks.jammed.append((0, 1))
    waits = shared.get(1, 2, 3)
    assert not shared.is_read(waits[0])
    ranks.unjam()
    assert shared.is_read(*waits)
    assert shared.is_read(*shared.get(2)), "And once more."
    assert ranks.sends == [(0, 1)]
    shared.end()


def test_hosts_read_from_each_other_in_a_chain(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(8, hosts="abcdefgh")
    shared = Shared(ranks, range(1, 8))
    ranks.jammed.append((0, 1))
    waits = shared.get(*range(1, 8))
    assert ranks.sends == [(0, 1), (0, 2), (2, 5), (2, 6)]
    ranks.unjam()
    # Rank 7 has it from 3, and that from 1, which had asked for it before.
    assert ranks.sends[4:] == [(1, 3), (3, 7), (1, 4)]
    assert shared.is_read(*waits)
    assert not ranks.sent(ReadRefused)
    shared.end()


def test_a_reader_that_evicts_its_copy_sends_others_back(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abb", nbytes_store=NBYTES_LARGE + 64)
    shared = Shared(ranks, (1, 2))
    shared.get(1)
    ranks.held += [(2, 1), (1, 0)]
    (wait,) = shared.get(2)
    shared.evict(1)
    # The holder hears of it from the other one first.
    ranks.held.remove((2, 1))
    ranks.settle()
    assert shared.is_read(wait)
    assert ranks.sends == [(0, 1), (0, 2)]
    assert ranks.sent(CopyGone) == [CopyGone(shared.ref, 1)]
    ranks.held.clear()
    # Now the other one reads for the host.
    assert shared.is_read(*shared.get(1))
    assert ranks.sends == [(0, 1), (0, 2)]
    shared.end()


def test_the_holder_knows_who_has_evicted_it(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abb", nbytes_store=NBYTES_LARGE + 64)
    shared = Shared(ranks, (1, 2))
    shared.get(1)
    shared.evict(1)
    assert shared.is_read(*shared.get(2))
    assert not ranks.sent(ReadRedirected)
    shared.end()


def test_a_reader_that_has_dropped_the_ref_keeps_the_bytes_for_others(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abb")
    shared = Shared(ranks, (1, 2))
    shared.get(1)
    shared.leave(1)
    assert shared.is_read(*shared.get(2))
    shared.leave(2)
    assert (1, shared.ref) in ranks.segments
    assert ranks.sends == [(0, 1)]
    shared.end()


def test_a_reader_that_is_taken_for_gone_keeps_nothing(make_ranks: MakeRanks) -> None:
    # Rank 2 is sent away by rank 1, which reads anew before that is known.
    ranks = make_ranks(3, hosts="abb", nbytes_store=NBYTES_LARGE + 64)
    shared = Shared(ranks, (1, 2))
    shared.get(1)
    ranks.held.append((2, 1))
    (late,) = shared.get(2)
    shared.evict(1)
    ranks.held[:] = [(2, 0)]
    ranks.settle()
    (again,) = shared.get(1)
    ranks.held.clear()
    ranks.settle()
    assert shared.is_read(late, again)
    assert ranks.sends == [(0, 1), (0, 1), (0, 2)]
    shared.leave(1)
    assert (1, shared.ref) not in ranks.segments
    shared.end()


def test_a_reader_whose_link_breaks_sends_others_back(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abb")
    shared = Shared(ranks, (1, 2))
    ranks.jammed.append((0, 1))
    waits = shared.get(1, 2)
    assert ranks.sends == [(0, 1)]
    ranks.unjam(BROKEN_LINK)
    assert ranks.woken[waits[0]].values == [BROKEN_LINK]
    assert shared.is_read(waits[1])
    assert ranks.sends == [(0, 1), (0, 2)]
    shared.end()


def test_a_link_between_readers_that_breaks_sends_one_back(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, hosts="abcd")
    shared = Shared(ranks, (1, 2, 3))
    ranks.jammed.append((1, 3))
    waits = shared.get(1, 2, 3)
    ranks.unjam(BROKEN_LINK)
    assert shared.is_read(*waits)
    assert ranks.sends == [(0, 1), (0, 2), (1, 3), (0, 3)]
    shared.end()


def test_who_is_redirected_and_wants_it_no_more_asks_nobody(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, hosts="abbb")
    shared = Shared(ranks, (1, 2, 3))
    shared.get(1)
    ranks.held.append((0, 2))
    (wait,) = shared.get(2)
    ranks.held.clear()
    # The answer of the owner comes, the read begins, and what the holder says to that waits.
    ranks.deliver_one(0, 2)
    ranks.held.append((0, 2))
    ranks.settle()
    ranks.abandon(2, wait)
    shared.leave(2)
    assert shared.ref in ranks.hands[2].core.copies.copies
    ranks.held.clear()
    ranks.settle()
    assert shared.ref not in ranks.hands[2].core.copies.copies
    assert not ranks.sent(LoanRequested)
    assert shared.is_read(*shared.get(3))
    assert ranks.sends == [(0, 1)]
    shared.end()


def test_who_reads_for_its_host_goes_on_when_it_wants_it_no_more(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abb")
    shared = Shared(ranks, (1, 2))
    ranks.jammed.append((0, 1))
    first, second = shared.get(1, 2)
    ranks.abandon(1, first)
    shared.leave(1)
    ranks.unjam()
    assert shared.is_read(second)
    assert ranks.sends == [(0, 1)]
    shared.end()


def test_nothing_is_left_when_all_have_dropped_it_meanwhile(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, hosts="abbc")
    shared = Shared(ranks, (1, 2, 3))
    ranks.jammed += [(0, 1), (0, 3)]
    for rank, wait in zip((1, 2, 3), shared.get(1, 2, 3), strict=True):
        ranks.abandon(rank, wait)
    for rank in (1, 2, 3):
        shared.leave(rank)
    ranks.drop(0, shared.ref)
    ranks.unjam()
    assert not ranks.segments
