"""How a rank rests: on its doorbell, which peers, and threads of its own, ring.

Theory of operation

Two threads may sleep on the doorbell. The *leader* does when it has found nothing for a while. The *helper* does when
nobody leads because all threads run user code: it *dozes*, and answers for them when somebody rings. The helper does
not hold the lead meanwhile, so that a thread that begins to wait leads at once and need not wake it.

* Each says first that the rank sleeps, looks twice for frames and into the mailbox after that, and then sleeps.
* Only the thread that holds the lead says that the rank is awake, or takes rings out. If the helper dozes too, which
  may have been meant, the leader rings for it when it leaves: until then frames are its own business.
* The helper of a rank all of whose slots are taken is not rung for tasks (``HAS_WORK``): the thread whose task ends
  looks for them. One that then neither runs the next task nor leads rings instead (``Engine.leave_rest``).
* Who posts what cannot wait turns the core itself and wakes nobody. Who posts what can wait for another turn, or
  leaves the core with a deadline earlier than the sleeper knew, rings.
* While data are under way the leader goes on looking, because they move only then; where nothing comes it naps between
  looks, by its own bell and not on the doorbell.
* A sleep ends by itself after a while, because MPI has news that no frame brings (the death of a rank, say); and soon
  if there are ranks that cannot ring, those of other hosts, and that cannot be heard otherwise (``hearing.py``).
"""

from __future__ import annotations

import os
from math import inf
from time import process_time
from typing import TYPE_CHECKING

from hpcfut.core.context import Context
from hpcfut.ports import SLEEPS, Clock, Transport
from hpcfut.runtime.frames import Frames
from hpcfut.runtime.hearing import Hearing
from hpcfut.runtime.movement import Movement

if TYPE_CHECKING:
    from hpcfut.runtime.waiter import Waiter

#: The longest sleep of a rank that all others can ring.
SLEEP_MAX_S = 0.05
#: The longest sleep of one that some cannot ring, and the share of the time for which it has found nothing.
SLEEP_MAX_UNRUNG_S = 0.002
SLEEP_SHARE = 0.3
#: The same for a helper while user code computes, and so has to be asked for the GIL as well.
DOZE_MAX_UNRUNG_S = 0.001
#: Against user code on other threads a leader naps for this long, so that many frames cost that few looks.
NAP_S = 0.0005
#: And while data travel that should not wait; the kernel makes it twice as long.
NAP_HURRIED_S = 0.00005
#: A look that takes longer than this has probably brought data. After so many others in a row a leader naps.
LOOK_IN_VAIN_S = 0.00004
N_LOOKS_IN_VAIN = 8
#: A rank that has rung no other for this long makes way for the next one that it wakes.
RINGS_APART_S = 0.01
#: Looks between saying that the rank sleeps and the sleep.
N_LOOKS = 2


class Rest:
    """What the threads of a rank know of each other's sleep; ``ring`` and ``doze`` apart, with the lead."""

    def __init__(
        self,
        hearing: Hearing,
        transport: Transport,
        frames: Frames,
        context: Context,
        clock: Clock,
        busy: dict[int, None],
        movement: Movement,
    ) -> None:
        self._doorbell = hearing.doorbell
        self._transport = transport
        self._frames = frames
        self._hearing = hearing
        #: Tasks, and drivers, that run user code now.
        self._busy = busy
        self._movement = movement
        self._context = context
        self._now = clock.now
        #: When the sleeper wakes by itself: infinite until it has looked and asked for deadlines, 0 if nobody sleeps.
        self.wakes_at = 0.0
        #: Whether the rank sleeps without being rung for tasks.
        self.is_deaf = False
        #: Whether the helper sleeps, or is about to.
        self.is_dozing = False
        #: When the helper lay down last, and what this process had computed by then.
        self._dozed_at = 0.0
        self._computed_s = 0.0
        #: Whether the leader has got the rank up while the helper dozed, which may have missed a ring by that.
        self._is_unheard = False
        #: The last ring of another rank that the leader knows of, and whether it makes way for who was woken by that.
        self._rang_at = 0.0
        self._makes_way = False
        #: When the last brief pause ended, and how many looks have brought nothing since data came.
        self._paused_at = 0.0
        self._n_vain = 0
        #: How often the leader has looked since it said that the rank sleeps.
        self._n_looks = 0

    def _until(self, now: float, sleep_s: float, deadline: float | None) -> float:
        """Not longer than until the deadline of the wait or of the core."""
        sleep_s = min(sleep_s, self._context.due_at - now)
        if deadline is not None:
            sleep_s = min(sleep_s, deadline - now)
        return max(sleep_s, 0.0)

    # -- the leader ----------------------------------------------------------------------------------------------------

    def pause(self, waiter: Waiter, idle_s: float, deadline: float | None) -> bool:
        """To be called after every look that has found nothing; sleeps once that is safe. Returns whether rung."""
        if self._transport.is_busy or (self._busy and idle_s < NAP_S):
            self._pause_briefly(waiter, deadline)
            return False
        self.note_look()
        if not self._n_looks:
            self.lie_down()
        self._n_looks += 1
        if self._n_looks <= N_LOOKS:
            return False
        now = self._now()
        longest_s = SLEEP_MAX_S if self._hearing.is_good else min(SLEEP_SHARE * idle_s, SLEEP_MAX_UNRUNG_S)
        # The longest sleep first, the deadlines second: who leaves an earlier deadline meanwhile sees one or the other.
        self.wakes_at = now + longest_s
        timeout_s = self._until(now, longest_s, deadline)
        self.wakes_at = now + timeout_s
        is_rung = waiter.sleep_on(self, timeout_s)
        if is_rung:
            self.get_up()
        else:
            # It may go on after one more look; what an event has brought may take MPI two.
            self.wakes_at = inf
            self._n_looks = N_LOOKS - self.was_called
        return is_rung

    def _pause_briefly(self, waiter: Waiter, deadline: float | None) -> None:
        """Frames or data are under way, which move only while this rank polls, or user code wants the GIL.

        Who waits for data of a rank that has something else to do, and spins, takes the core from it, or from what the
        kernel does for both.
        """
        now, movement = self._now(), self._movement
        self._n_vain = self._n_vain + 1 if now - self._paused_at < LOOK_IN_VAIN_S else 0
        if self._busy or (self._n_vain >= N_LOOKS_IN_VAIN and movement.is_open):
            nap_s = NAP_HURRIED_S if movement.is_hurried(now) else NAP_S
            waiter.sleep(self._until(now, nap_s, deadline))
        else:
            os.sched_yield()
        self._paused_at = self._now()

    def makes_way(self) -> bool:
        """Whether this rank has woken another one, after a time in which it woke none, and has found nothing since.

        Whom it woke may have no other core than this one: so a task to a rank that had been idle took a third less than
        with a spin of 0.15 ms, and a spin of 1 ms tripled its time. Yielding instead was better at some times and much
        worse at others. While ranks ring each other often they stay awake.
        """
        rang_at = self._doorbell.rang_at
        if rang_at != self._rang_at:
            self._makes_way = rang_at - self._rang_at > RINGS_APART_S
            self._rang_at = rang_at
        return self._makes_way

    def end(self) -> None:
        """The leader has found something."""
        self._makes_way = False
        self.note_look()
        if self._n_looks:
            self.get_up()

    def leave(self) -> None:
        """The leader has news, or no more time; from now on frames are the helper's business, if it dozes."""
        self._makes_way = False
        self.note_look()
        if self._n_looks:
            self.get_up()
        if self._is_unheard:
            self._is_unheard = False
            if self.is_dozing:
                self.ring()

    # -- the helper ----------------------------------------------------------------------------------------------------

    def prepare_doze(self) -> float | None:
        """Say that the helper dozes from now on, once it has given up the lead; returns for how long, if it may."""
        if self._transport.is_busy:
            return None
        self.is_dozing = True
        now, longest_s = self._now(), SLEEP_MAX_S
        if self.is_deaf:
            # Tasks behind one that takes long are handed back after this time, those that came without a ring, too.
            longest_s = min(longest_s, self._context.config.hand_back_after_s)
        if not self._hearing.is_good:
            computed_s = process_time()
            is_computing = 2 * (computed_s - self._computed_s) > now - self._dozed_at
            longest_s = DOZE_MAX_UNRUNG_S if is_computing else SLEEP_MAX_UNRUNG_S
            self._dozed_at, self._computed_s = now, computed_s
        self.wakes_at = now + longest_s
        timeout_s = self._until(now, longest_s, None)
        self.wakes_at = now + timeout_s
        return timeout_s

    def doze(self, timeout_s: float) -> bool:
        """Sleep as the helper, without the lead; returns whether it was rung."""
        is_rung = self.sleep(timeout_s)
        self.is_dozing = False
        return is_rung

    # -- both ----------------------------------------------------------------------------------------------------------

    def lie_down(self, how: int = SLEEPS) -> None:
        """Say that this rank sleeps, and how."""
        # In this order, because the doorbell forgets what rang before; what that was for is found by the looks.
        self._doorbell.lie_down(how)
        self.is_deaf = how != SLEEPS
        self.wakes_at = inf

    def get_up(self) -> None:
        """Say that this rank is awake."""
        self._n_looks = 0
        self.wakes_at = 0.0
        self._doorbell.get_up()
        self._is_unheard = self.is_dozing

    def sleep(self, timeout_s: float) -> bool:
        """Sleep until rung, or until an event of the network, or for this long; returns whether it was rung."""
        is_rung = self._doorbell.sleep(timeout_s)
        self._hearing.note_sleep(timeout_s, is_rung=is_rung)
        return is_rung

    @property
    def was_called(self) -> bool:
        """Whether the last sleep was ended by an event of the network."""
        return bool(self._hearing.called_by)

    def note_look(self) -> None:
        """Somebody has looked for frames; the looks after a sleep say whether that ended in time."""
        if self._hearing.is_open:
            self._hearing.note_look(self._frames.n_arrived)

    def ring(self) -> None:
        """Wake whoever sleeps on the doorbell; from any thread of this rank."""
        self.wakes_at = 0.0
        self._doorbell.ring(self._context.rank)
