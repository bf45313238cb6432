"""Handles: what callers have of an actor. A handle is counted like a ref, and the actor ends when nobody has one."""

from __future__ import annotations

import difflib
from typing import Any, NoReturn

from hpcfut.api.actor_options import MethodOptions
from hpcfut.api.generators import ObjectRefGenerator
from hpcfut.api.interfaces import Interface, Traits, interface_of
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import demand_current
from hpcfut.model.errors import PendingCallsLimitExceededError


class ActorID(str):
    """Names an actor; it keeps none alive, and is no ref to a value."""

    __slots__ = ()

    def hex(self) -> str:
        """The id as 16 hexadecimal digits."""
        return str(self)


class ActorHandle:
    """Calls the methods of an actor: ``handle.method.remote(...)`` gives the ref of the result at once.

    A handle may be passed to tasks and to other actors, returned, put inside other values, compared and hashed. The
    actor lives for as long as anybody in the job has a handle of it.

    Example:
        >>> @hpcfut.remote
        ... class Counter:
        ...     def __init__(self, n=0):
        ...         self.n = n
        ...     def add(self, k=1):
        ...         self.n += k
        ...         return self.n
        >>> counter = Counter.remote(10)
        >>> hpcfut.get([counter.add.remote(), counter.add.remote(5)])
        [11, 16]
    """

    def __init__(self, ref: ObjectRef[Any], interface: Interface) -> None:
        """Handles are made by hpcfut."""
        # Methods have the ref and not the handle, so that no cycle keeps an actor alive.
        self._ref = ref
        self._interface = interface
        if "__call__" in interface.traits.methods:
            self.__getattr__("__call__")  # Handles have one themselves, which says that they cannot be called.

    def __getattr__(self, name: str) -> ActorMethod:
        if "_interface" not in self.__dict__:
            raise AttributeError(name)
        interface = self._interface
        options = interface.traits.methods.get(name)
        if options is None:
            raise AttributeError(_no_method(interface.traits, name))
        method = self.__dict__[name] = ActorMethod(self._ref, interface, name, options)
        return method

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._ref.hex())

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """An actor cannot be called directly."""
        raise TypeError(f"{self!r} cannot be called directly. Call one of its methods: handle.method.remote(...).")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._interface.traits.methods]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._ref == self._ref

    def __hash__(self) -> int:
        return hash(self._ref)

    def __repr__(self) -> str:
        return f"Actor({self._interface.traits.class_name}, {self._ref.hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return handle_of, (self._ref, *self._interface.descriptor)

    def __copy__(self) -> ActorHandle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ActorHandle:
        return self


class ActorMethod:
    """A method of an actor; ``.remote(...)`` calls it."""

    __slots__ = ("_actor_id", "_interface", "_n_pending_max", "_n_returns", "_name", "_options", "_template_id")

    def __init__(self, actor_id: ObjectRef[Any], interface: Interface, name: str, options: MethodOptions) -> None:
        self._actor_id = actor_id
        self._interface = interface
        self._name = name
        self._options = options
        #: How many refs a call begins with; a generator has one in reserve, which tells its end.
        self._n_returns = (
            options.generator_backpressure_num_objects + 1 if options.is_streaming else int(options.num_returns or 0)
        )
        self._n_pending_max = interface.traits.max_pending_calls
        self._template_id = 0

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; calls of one caller run in the order in which they were made.

        Returns:
            The ref of the result; a list of refs if ``num_returns`` is more than 1; ``None`` if it is 0; an
            ``ObjectRefGenerator`` if it is "streaming", which is the default for generators.

        Raises:
            PendingCallsLimitExceededError: So many calls of this rank have not ended as ``max_pending_calls`` allows.
            SessionEndedError: The session of the actor is over.
            UnpicklableError: An argument cannot be sent to another rank.
        """
        runtime = self._interface.runtime
        template_id = self._template_id
        if not template_id or runtime.engine.end is not None or self._n_pending_max >= 0:
            template_id = self._prepare()
        return_ids = runtime.submit(template_id, self._n_returns, args, kwargs, self._actor_id._object_id)
        released = runtime.released
        if self._n_returns == 1:
            return ObjectRef(return_ids[0], released)
        if self._options.is_streaming:
            return ObjectRefGenerator(return_ids, runtime)
        return [ObjectRef(return_id, released) for return_id in return_ids] or None

    def _prepare(self) -> int:
        interface, n_pending_max = self._interface, self._n_pending_max
        runtime = interface.runtime
        demand_current(runtime, self)
        runtime.demand_session()
        if n_pending_max >= 0 and runtime.actors.n_calls(self._actor_id._object_id) >= n_pending_max:
            raise PendingCallsLimitExceededError(
                f"{n_pending_max} calls of {self!r} from rank {runtime.rank} have not ended yet, as many as "
                f"max_pending_calls allows. Wait for some of them, or allow more."
            )
        self._template_id = interface.template_of(self._name, self._options)
        return self._template_id

    def options(self, **given: Any) -> ActorMethod:
        """The same method with other options: ``handle.method.options(num_returns=2).remote(...)``.

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        return ActorMethod(self._actor_id, self._interface, self._name, self._options.updated(given))

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """A method cannot be called directly, so that nobody mistakes one for the other."""
        raise TypeError(
            f"The method {self._interface.traits.class_name}.{self._name} runs where the actor lives, and cannot be "
            f"called directly. Call handle.{self._name}.remote(...), which gives a ref."
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._interface.traits.class_name}.{self._name}, {self._actor_id.hex()})"


def handle_of(ref: ObjectRef[Any], class_id: int, packed: bytes) -> ActorHandle:
    """A handle that has come to this rank."""
    return ActorHandle(ref, interface_of(class_id, packed))


def _no_method(traits: Traits, name: str) -> str:
    methods = [method for method in traits.methods if not method.startswith("__ray_")]
    close = difflib.get_close_matches(name, methods, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return (
        f"The remote class {traits.class_name} has no method {name!r}.{hint} It has: {', '.join(methods) or 'none'}. "
        f"Attributes of an actor can be had through a method only."
    )
