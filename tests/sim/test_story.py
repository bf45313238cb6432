"""The trace reads like a story."""

from __future__ import annotations

import re
from textwrap import dedent

from hpcfut.sim.explored import EvenRandom
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Make, Program, get
from hpcfut.sim.world import SimWorld


def test_the_story_of_a_large_result() -> None:
    # x = ray.put(1); y = double.remote(x); ray.get(y)    # double is bound to rank 1
    def double(me: Frame) -> Program:
        return [Make(is_stored=True)]
        yield

    def script(me: Frame) -> Program:
        x = me.put()
        (y,) = me.submit(me.define(affinity=1), double, arguments=[x])
        yield get(y, may_run=False)
        return []

    world = SimWorld(2, 0, script, rng=EvenRandom(0))
    world.run()
    (y,) = world.truth.specs
    lines = list(world.trace.lines(about=y))
    assert all(re.match(r" +\d+\.\d{3} ms  ", line) for line in lines)
    story = "\n".join(line.split(" ms  ", 1)[1] for line in lines)
    assert f"{story}\n" == dedent("""\
        0 hears TaskSubmitted(task_id=0.3, template_id=0.2, payload=call 0.3, return_ids=[0.3], arguments=[0.1])
        0 hears WaitStarted(waiter_id=1, object_ids=[0.3], n_wanted=1, is_fetching=yes, is_for_good=yes, is_taking=yes)
        0 tells 1: TaskPushed(task_id=0.3, lease_id=1, template_id=0.2, payload=call 0.3, ARGUMENTS)
            1 hears from 0: TaskPushed(task_id=0.3, lease_id=1, template_id=0.2, payload=call 0.3, ARGUMENTS)
            1 does RunTask(task_id=0.3, template_id=0.2, payload=call 0.3, ARGUMENTS, return_ids=[0.3])
            1 hears RoomWanted(waiter_id=1, object_id=0.3, nbytes=1000)
            1 does GiveRoom(waiter_id=1, object_id=0.3)
            1 hears RunReturned(task_id=0.3, results=[Result(nbytes=1000)])
            1 tells 0: TaskReturned(task_id=0.3, results=[Result(nbytes=1000)])
        0 hears from 1: TaskReturned(task_id=0.3, results=[Result(nbytes=1000)])
        0 does WakeWaiter(waiter_id=1, object_ids=[0.3], values=[Place(object_id=0.3, rank=1, nbytes=1000)], PLACED)
        0 hears RefsReleased(object_ids=[0.1 0.3])
        0 hears ViewsClosed(object_ids=[0.3])
        0 tells 1: ObjectFreed(object_id=0.3)
        0 tells 1: LoanReturned(object_id=0.3, n=1)
            1 hears from 0: ObjectFreed(object_id=0.3)
            1 hears from 0: LoanReturned(object_id=0.3, n=1)
            1 does FreeSegment(object_id=0.3)
        """).replace("PLACED", "has_places=yes").replace(
        "ARGUMENTS", "arguments=[Argument(object_id=0.1, payload=put 0.1, rank=0, offset=-1)]"
    )
