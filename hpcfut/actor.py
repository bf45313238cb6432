"""What programs for Ray import from ``ray.actor``."""

from hpcfut.api.actors import ActorClass, exit_actor
from hpcfut.api.handles import ActorHandle

__all__ = ["ActorClass", "ActorHandle", "exit_actor"]
