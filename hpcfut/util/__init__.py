"""Tools on the public names, where Ray has them: pools of actors, and what ranks share to wait for each other."""

from hpcfut import list_named_actors
from hpcfut.util.actor_pool import ActorPool
from hpcfut.util.barrier import Barrier, BrokenBarrierError
from hpcfut.util.queue import Empty, Full, Queue
from hpcfut.util.semaphore import Semaphore

__all__ = [
    "ActorPool",
    "Barrier",
    "BrokenBarrierError",
    "Empty",
    "Full",
    "Queue",
    "Semaphore",
    "list_named_actors",
]
