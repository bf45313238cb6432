"""Bulk data on their way between virtual ranks: what readers wait for, and what holders have not sent to the end.

A request with a rank that dies ends at the other end only when that one has heard of the death; what had left before
may come before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.model.failure import INTERNAL, LOST, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.place import Place

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Read(msgspec.Struct, gc=False, eq=False):
    """A transfer that a reader has got ready for."""

    reader: SimRank
    object_id: int
    transfer_id: int
    holder: int
    is_sending: bool = False
    #: Whether the rest of it will never come, because the holder has died while it sent.
    is_stuck: bool = False


class Send(msgspec.Struct, gc=False, eq=False):
    """A transfer that leaves a holder."""

    holder: SimRank
    object_id: int
    reader: int
    is_over: bool = False


class Transfers:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        #: By reader and transfer.
        self.reads: dict[tuple[int, int], Read] = {}
        self.sends: list[Send] = []

    def open(self, reader: SimRank, effect: f.StartRead) -> None:
        """A reader is ready for bulk data."""
        read = Read(reader, effect.object_id, effect.transfer_id, effect.rank)
        self.reads[reader.rank, effect.transfer_id] = read
        if effect.rank in reader.has_lost:
            self._world.schedule(self._world.now, self.end_in_vain, read)

    def send(self, holder: SimRank, effect: f.SendObject) -> None:
        """A holder sends bulk data; it leaves and arrives at different times."""
        world = self._world
        send = Send(holder, effect.object_id, effect.rank)
        self.sends.append(send)
        payload = holder.window.start_send(Place(effect.object_id, holder.rank, effect.offset, effect.nbytes))
        if effect.rank in holder.has_lost:
            world.schedule(world.now, self.has_left, send)
            return
        left_at = world.now + 3 * world.fabric.latency()
        if not world.ranks[effect.rank].is_dead or world.rng.random() <= 0.5:
            world.schedule(left_at, self.has_left, send)
        read = self.reads.get((effect.rank, effect.transfer_id))
        if read is not None:  # Else the reader is dead.
            read.is_sending = True
            world.schedule(left_at + world.fabric.latency(), self.has_arrived, (read, payload))

    def has_left(self, send: Send) -> None:
        """All bytes have left."""
        if not send.is_over:
            send.is_over = True
            self.sends.remove(send)
            send.holder.window.end_send(send.object_id)
            send.holder.post(e.SendCompleted(send.object_id))

    def has_arrived(self, what: tuple[Read, bytes]) -> None:
        """All bytes have come; or the link breaks."""
        read, payload = what
        if read.is_stuck or not self.is_open(read):
            return
        world, reader = self._world, read.reader
        if world.scenario.p_broken_read and world.rng.random() < world.scenario.p_broken_read:
            self._fail(read, broken_link(read.object_id, read.holder))
        else:
            del self.reads[reader.rank, read.transfer_id]
            reader.window.arrive(read.object_id, payload)
            reader.post(e.ReadCompleted(read.transfer_id))

    def cancel(self, reader: SimRank, object_id: int) -> None:
        """A segment is freed: a read into it that was refused is not waited for any more."""
        for key, read in self.reads.items():
            if read.reader is reader and read.object_id == object_id and not read.is_sending:
                reader.window.break_off(object_id)
                del self.reads[key]
                return

    # -- deaths ------------------------------------------------------------------------------------------------------

    def stop(self, dead: int) -> None:
        """A rank dies: it reads nothing any more, and sends only what had left."""
        world = self._world
        for key in [key for key in self.reads if key[0] == dead]:
            del self.reads[key]
        for send in [send for send in self.sends if send.holder.rank == dead]:
            send.is_over = True
            self.sends.remove(send)
        for read in self.reads.values():
            if read.holder == dead:
                read.is_stuck = world.rng.random() < 0.5

    def end_with(self, survivor: SimRank, dead: int) -> None:
        """A rank hears of a death: all its requests with the dead end."""
        for send in list(self.sends):
            if send.holder is survivor and send.reader == dead:
                self.has_left(send)
        for read in list(self.reads.values()):
            if read.reader is survivor and read.holder == dead:
                self.end_in_vain(read)

    def end_in_vain(self, read: Read) -> None:
        """The holder is dead."""
        if self.is_open(read):
            self._fail(read, dead_holder(read.object_id, read.holder))

    def is_open(self, read: Read) -> bool:
        """Whether the reader waits for it."""
        return self.reads.get((read.reader.rank, read.transfer_id)) is read

    def _fail(self, read: Read, failure: Failure) -> None:
        del self.reads[read.reader.rank, read.transfer_id]
        read.reader.window.break_off(read.object_id)
        self._world.truth.note_injected(failure, read.object_id)
        read.reader.post(e.ReadFailed(read.transfer_id, failure))


def broken_link(object_id: int, rank: int) -> Failure:
    """The failure of a read that the fabric breaks off."""
    return Failure(INTERNAL, f"The link to rank {rank} broke while object {name_of(object_id)} was read.")


def dead_holder(object_id: int, rank: int) -> Failure:
    """The failure of a read from a rank that is dead."""
    return Failure(LOST, f"Rank {rank} died while object {name_of(object_id)} was read from it.")
