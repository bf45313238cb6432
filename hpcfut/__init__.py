"""Distributed futures on MPI ranks, with Ray Core's names.

Example:
    >>> import hpcfut
    >>> @hpcfut.remote
    ... def add(a, b):
    ...     return a + b
    >>> hpcfut.get(add.remote(1, 2))
    3
"""

from hpcfut import actor, exceptions
from hpcfut.api.actors import ActorClass, exit_actor, get_actor, kill, list_named_actors
from hpcfut.api.calls import as_completed, empty, get, lazy_array, put, wait
from hpcfut.api.cancellation import cancel
from hpcfut.api.generators import ObjectRefGenerator
from hpcfut.api.handles import ActorHandle
from hpcfut.api.interfaces import method
from hpcfut.api.introspection import RuntimeContext, available_resources, cluster_resources, get_runtime_context, nodes
from hpcfut.api.memory import memory_summary
from hpcfut.api.options import NodeAffinitySchedulingStrategy
from hpcfut.api.refs import ObjectRef
from hpcfut.api.remote import RemoteFunction, remote
from hpcfut.api.session import init, is_initialized, shutdown
from hpcfut.version import __version__

__all__ = [
    "ActorClass",
    "ActorHandle",
    "NodeAffinitySchedulingStrategy",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "RuntimeContext",
    "__version__",
    "actor",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "empty",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "lazy_array",
    "list_named_actors",
    "memory_summary",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "wait",
]

from hpcfut import util as util  # It takes its names from here.
