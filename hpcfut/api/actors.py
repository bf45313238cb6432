"""Remote classes: ``@remote class``, ``.remote()``, ``.options()``, and actors by their names."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hpcfut.api.actor_options import START_WITHIN_S, ActorOptions, n_retries_of
from hpcfut.api.handles import ActorHandle, handle_of
from hpcfut.api.interfaces import Interface, Traits, methods_of
from hpcfut.api.options import NodeAffinitySchedulingStrategy
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import current, runtime_of
from hpcfut.model.template import ActorTemplate, TaskTemplate
from hpcfut.model.variables import ACTOR_START_VARIABLE
from hpcfut.runtime.outcomes import ActorExitError
from hpcfut.runtime.runtime import CONSTRUCTOR

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime

#: One thread at a time registers classes. Re-entrant, because pickling one may run code of the user's.
_REGISTERING: Final = threading.RLock()
#: So many variants of a class are kept registered.
N_VARIANTS_MAX: Final = 64
#: Options that say what an actor is called and not what it is.
NAMING: Final = frozenset({"name", "namespace", "get_if_exists", "lifetime"})


class ActorClass:
    """A class whose instances live on ranks. ``C.remote(...)`` makes one and returns a handle of it at once.

    Example:
        >>> @hpcfut.remote
        ... class Counter:
        ...     n = 0
        ...     def add(self):
        ...         self.n += 1
        ...         return self.n
        >>> isinstance(Counter, hpcfut.ActorClass)
        True
    """

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise TypeError(
            f"A class cannot inherit from the remote class {self._class.__qualname__}. Inherit from the plain class, "
            f"kept under another name, and make that remote: D = remote(PlainD)."
        )

    def __init__(self, made: type, options: ActorOptions, base: ActorClass | None = None) -> None:
        """``base``: the same class with the same options, but for the name and how that is used."""
        self._class = made
        self._options = options
        #: What has registered the class, and what ``options`` has made of it.
        self._base = base or self
        self._variants: dict[tuple[tuple[str, type, Any], ...], ActorClass] = {}
        self._interface: Interface | None = None
        if base is None:
            methods, self._is_async = methods_of(made, options.concurrency_groups)
            self._traits = Traits(
                class_name=made.__qualname__,
                methods=methods,
                max_task_retries=options.max_task_retries,
                max_pending_calls=options.max_pending_calls,
                is_ordered=not options.allow_out_of_order_execution,
                env_vars=options.env_vars(),
            )
        else:
            self._traits = base._traits
        functools.update_wrapper(self, made, updated=())

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """A remote class cannot be called directly, so that nobody mistakes one for the other."""
        name = self._traits.class_name
        raise TypeError(
            f"The remote class {name} cannot be called directly. Call {name}.remote(...) to make an actor, or keep the "
            f"plain class under another name: C = remote(c)."
        )

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle:
        """Make an actor, with these arguments of the constructor, on a rank that has what it needs.

        It returns at once. If the constructor raises, calls of the actor's methods raise ``ActorDiedError``.

        Example:
            >>> @hpcfut.remote
            ... class Greeter:
            ...     def __init__(self, name):
            ...         self.name = name
            ...     def greet(self):
            ...         return f"Hello {self.name}"
            >>> hpcfut.get(Greeter.remote("you").greet.remote())
            'Hello you'

        Raises:
            UnpicklableError: An argument, or the class itself, cannot be sent to another rank.
            ValueError: The name is taken, and ``get_if_exists`` is not given.
        """
        interface = self._base._interface
        if interface is None or interface.runtime.engine.end is not None:
            interface = self._base._register()
        options, runtime = self._options, interface.runtime
        actor_id = runtime.actors.new_id()
        if options.name:
            namespace = namespace_of(runtime, options.namespace)
            found = runtime.actors.claim(namespace, options.name, actor_id, interface.descriptor)
            if found is not None:
                handle = handle_of(ObjectRef(found[0], runtime.released), *found[1])
                if options.get_if_exists:
                    return handle
                raise ValueError(
                    f"The name {options.name!r}{_in(namespace)} is taken by {handle!r}. Take another one, or give "
                    f"get_if_exists=True to get a handle of that actor."
                )
        try:
            runtime.submit(interface.class_id, CONSTRUCTOR, (options.name, *args), kwargs, actor_id)
        except BaseException:  # Whatever it is, the name would be taken for ever.
            if options.name:
                runtime.actors.give_back_name(actor_id)
            raise
        ref: ObjectRef[Any] = ObjectRef(actor_id, runtime.released)
        if options.lifetime == "detached":
            runtime.actors.hold(actor_id, ref)
        return ActorHandle(ref, interface)

    def options(self, **given: Any) -> ActorClass:
        """The same class with other options: ``C.options(name="the one").remote(...)``.

        Example:
            >>> @hpcfut.remote
            ... class Counter:
            ...     def add(self, a, b):
            ...         return a + b
            >>> counter = Counter.options(num_cpus=1, name="the one").remote()
            >>> hpcfut.list_named_actors()
            ['the one']

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        changed = {name: value for name, value in given.items() if name not in NAMING}
        # Values that are equal are not always the same: True is no number of CPUs.
        key = tuple((name, type(value), value) for name, value in changed.items())
        base, variants = self._base, self._base._variants
        if changed:
            try:
                found = variants.get(key)
            except TypeError:  # A dict of resources, say.
                return ActorClass(self._class, self._options.updated(given))
            if found is None:
                found = ActorClass(self._class, base._options.updated(changed))
                if len(variants) >= N_VARIANTS_MAX:
                    variants.clear()
                variants[key] = found
            base = found
        return ActorClass(self._class, self._options.updated(given), base)

    def __repr__(self) -> str:
        return f"ActorClass({self._traits.class_name})"

    def _register(self) -> Interface:
        runtime = current()
        with _REGISTERING:
            interface = self._interface
            if interface is None or interface.runtime is not runtime:  # Another thread may have been faster.
                packed = runtime.actors.pack(self._traits)
                class_id = self._define(runtime, packed)
                interface = self._interface = Interface(runtime, class_id, self._traits, packed, is_original=True)
        return interface

    def _define(self, runtime: Runtime, packed: bytes) -> int:
        options, traits = self._options, self._traits
        strategy = options.scheduling_strategy
        affinity, is_soft = -1, False
        if isinstance(strategy, NodeAffinitySchedulingStrategy):
            affinity, is_soft = strategy.node_id, strategy.soft
        actor = ActorTemplate(
            is_async=self._is_async,
            groups=options.groups(is_async=self._is_async),
            held=options.held(),
            n_restarts_max=n_retries_of(options.max_restarts),
            start_within_s=float(os.environ.get(ACTOR_START_VARIABLE) or START_WITHIN_S),
        )

        def make_template(template_id: int, made: bytes, nested: tuple[int, ...], types: bytes) -> TaskTemplate:
            return TaskTemplate(
                template_id=template_id,
                name=traits.class_name,
                function=made,
                nested=nested,
                n_returns=0,
                resources=options.needed(),
                affinity=affinity,
                affinity_soft=is_soft,
                spread=strategy == "SPREAD",
                env_vars=traits.env_vars,
                actor=actor,
            )

        return runtime.define(make_template, (self._class, packed), ())

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._options)


def namespace_of(runtime: Runtime, given: str | None) -> str:
    """The namespace of a name: the one given, or the session's."""
    return runtime.config.namespace if given is None else given


def _in(namespace: str) -> str:
    return f" in the namespace {namespace!r}" if namespace else ""


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """A handle of the actor that has this name.

    Example:
        >>> @hpcfut.remote
        ... class Counter:
        ...     def add(self, a, b):
        ...         return a + b
        >>> counter = Counter.options(name="the counter").remote()
        >>> hpcfut.get_actor("the counter") == counter
        True

    Args:
        name: As it was given to ``.options(name=…)``, on any rank.
        namespace: That of the session, which ``init`` was given, if it is not given.

    Raises:
        ValueError: There is no such actor.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"get_actor() was given {name!r}. Give it the name of an actor, a text.")
    runtime = current()
    namespace = namespace_of(runtime, namespace)
    found = runtime.actors.seek(namespace, name)
    if found is None:
        raise ValueError(
            f"There is no actor with the name {name!r}{_in(namespace)}. It was not made yet, or has ended: an actor "
            f'lives while somebody holds a handle of it, or, with lifetime="detached", until the job ends.'
        )
    return handle_of(ObjectRef(found[0], runtime.released), *found[1])


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of all actors that have one.

    Example:
        >>> hpcfut.list_named_actors()
        []

    Args:
        all_namespaces: Those of all namespaces, each as a dict with ``name`` and ``namespace``.

    Returns:
        The names in the session's namespace, sorted, or the dicts.
    """
    runtime = current()
    names = sorted(runtime.actors.names())
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in names]
    return [name for namespace, name in names if namespace == runtime.config.namespace]


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once; calls that run or wait raise ``ActorDiedError``.

    What its methods do is interrupted where that can be, as by ``cancel``. Nothing of its code is called.

    Example:
        >>> @hpcfut.remote
        ... class Counter:
        ...     def add(self):
        ...         return 1
        >>> counter = Counter.remote()
        >>> hpcfut.kill(counter)
        >>> hpcfut.get(counter.add.remote())
        Traceback (most recent call last):
        hpcfut.exceptions.ActorDiedError: Actor Counter was killed.

    Args:
        actor: A handle of it.
        no_restart: Whether it stays dead; otherwise it is started again, if ``max_restarts`` allows that.

    Raises:
        TypeError: This is no handle of an actor.
    """
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() was given {actor!r}. Give it a handle of an actor; tasks are ended by cancel().")
    runtime_of(actor._ref).actors.kill(actor._ref._object_id, is_final=no_restart)


def exit_actor() -> NoReturn:
    """End the actor whose method calls this; the call itself, and later ones, raise ``ActorDiedError``.

    It is not started again. It leaves the method like an exception, past ``except Exception``.

    Example:
        >>> @hpcfut.remote
        ... class Guest:
        ...     def leave(self):
        ...         hpcfut.exit_actor()
        >>> hpcfut.get(Guest.remote().leave.remote())
        Traceback (most recent call last):
        hpcfut.exceptions.ActorDiedError: Actor Guest left by itself.

    Raises:
        RuntimeError: This is no method of an actor.
    """
    if current().actors.here is None:
        raise RuntimeError("exit_actor() was called outside of an actor. It ends the actor whose method calls it.")
    raise ActorExitError
