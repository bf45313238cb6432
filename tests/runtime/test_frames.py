"""Which frames ring a rank that has work: all but those with nothing but tasks in them."""

from __future__ import annotations

import pytest

from hpcfut.core.rank import RankCore
from hpcfut.edges.host.loopback import LoopbackTransport
from hpcfut.model.config import Config
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.runtime.frames import Frames
from hpcfut.wire.messages import LeaseReturned, Message, TaskPushed

TASK, OTHER = TaskPushed(1, 1, 1, b""), LeaseReturned(1)


class Post(LoopbackTransport):
    """Notes what is said of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bool] = []

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        self.said.append(only_tasks)


@pytest.mark.parametrize(
    ("messages", "only_tasks"),
    [([TASK], True), ([TASK] * 3, True), ([OTHER], False), ([OTHER, TASK], False), ([TASK, OTHER, TASK], False)],
)
def test_frames_of_tasks_only_are_known(messages: list[Message], only_tasks: bool) -> None:
    post = Post()
    roster = [RankRecord(rank, 0, "h", "h", 77, {"CPU": RESOURCE_UNIT}) for rank in range(2)]
    core = RankCore(0, roster, Config(), is_driver=True, nbytes_store=1000)
    frames = Frames(core.context, post, 0, lambda: 0)
    for message in messages:
        frames.send(1, message)
    frames.flush()
    for message in messages:
        frames.send(1, message)
    frames.push(1)
    assert post.said == [only_tasks] * 2
