"""Interfaces: what those who call an actor know of its class. An interface travels with every handle.

On each rank there is one for each class and session. It registers a method, with its options, when that is first called
there, and has it forgotten when it goes itself, with the last handle.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from hpcfut.api.actor_options import MethodOptions, n_retries_of
from hpcfut.api.options import STREAMED
from hpcfut.api.session import current
from hpcfut.model.template import STREAMING, TaskTemplate

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime

Function = TypeVar("Function", bound=Callable[..., Any])

#: Where ``method`` leaves the options of a method.
_MARK: Final = "__hpcfut_method__"
#: Methods that every actor has, as Ray's actors have them.
BUILT_IN: Final = {
    name: MethodOptions(num_returns=1) for name in ("__ray_ready__", "__ray_call__", "__ray_terminate__")
}


class Traits(msgspec.Struct, frozen=True):
    """What all methods of a class have in common, with the options of the class."""

    class_name: str
    methods: dict[str, MethodOptions]
    max_task_retries: int = 0
    max_pending_calls: int = -1
    is_ordered: bool = True
    env_vars: tuple[tuple[str, str], ...] = ()


class Interface:
    """What this rank knows of a class; made once for the class, or by ``interface_of`` for one that came."""

    def __init__(
        self, runtime: Runtime, class_id: int, traits: Traits, packed: bytes, *, is_original: bool = False
    ) -> None:
        """``packed``: the traits, pickled. ``is_original``: the class was registered here, for this."""
        self.runtime = runtime
        #: The id of the template of its constructor.
        self.class_id = class_id
        self.traits = traits
        #: What it takes to make a handle elsewhere, besides the ref.
        self.descriptor = class_id, packed
        self._is_original = is_original
        self._template_ids: dict[tuple[str, MethodOptions], int] = {}
        runtime.actors.interfaces[class_id] = self

    def template_of(self, method: str, options: MethodOptions) -> int:
        """The template of a method with these options, registered here."""
        try:
            found = self._template_ids.get((method, options))
        except TypeError:  # A list of exceptions, say.
            options = msgspec.structs.replace(options, retry_exceptions=options.retried())
            found = self._template_ids.get((method, options))
        if found is None:
            found = self._template_ids[method, options] = self._define(method, options)
        return found

    def _define(self, method: str, options: MethodOptions) -> int:
        traits = self.traits
        n_retries_max = traits.max_task_retries if options.max_task_retries is None else options.max_task_retries
        n_returns = STREAMING if options.is_streaming else int(options.num_returns or 0)

        def make_template(template_id: int, retry_exceptions: bytes) -> TaskTemplate:
            return TaskTemplate(
                template_id=template_id,
                name=options.name or f"{traits.class_name}.{method}",
                function=b"",
                n_returns=n_returns,
                resources=(),
                n_retries_max=n_retries_of(n_retries_max),
                retry_exceptions=retry_exceptions,
                n_items_ahead_max=options.generator_backpressure_num_objects,
                env_vars=traits.env_vars,
                method=method,
                group=options.concurrency_group,
                is_ordered=traits.is_ordered,
            )

        return self.runtime.actors.define_method(make_template, options.retried())

    def __del__(self) -> None:
        for template_id in getattr(self, "_template_ids", {}).values():
            self.runtime.forget(template_id)
        if getattr(self, "_is_original", False):
            self.runtime.forget(self.class_id)


def interface_of(class_id: int, packed: bytes) -> Interface:
    """The interface on this rank of a class that has come."""
    runtime = current()
    interface: Interface | None = runtime.actors.interfaces.get(class_id)
    if interface is None:
        interface = Interface(runtime, class_id, runtime.pickling.loads(packed), packed)
    return interface


def methods_of(made: type, groups: Mapping[str, int]) -> tuple[dict[str, MethodOptions], bool]:
    """The methods of a class, with their options, and whether one of them is ``async``.

    Raises:
        ValueError: A method names a concurrency group that the class does not have.
    """
    methods, is_async = dict(BUILT_IN), False
    for name in dir(made):
        if name.startswith("__") and name.endswith("__") and name != "__call__":
            continue
        static = inspect.getattr_static(made, name)
        function = static.__func__ if isinstance(static, classmethod | staticmethod) else static
        if inspect.isclass(function) or not (callable(function) or isinstance(function, functools.partialmethod)):
            continue
        options: MethodOptions = getattr(function, _MARK, MethodOptions())
        if options.num_returns is None:
            is_streaming = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
            options = msgspec.structs.replace(options, num_returns=STREAMED if is_streaming else 1)
        demand_group(name, options.concurrency_group, groups)
        methods[name] = options
        is_async |= inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    return methods, is_async


def demand_group(method: str, group: str, groups: Mapping[str, int]) -> None:
    """Refuse a concurrency group that the class does not have.

    Raises:
        ValueError: That is so.
    """
    if group and group not in groups:
        known = ", ".join(groups) or "none"
        raise ValueError(
            f"The method {method} names the concurrency group {group!r}, but its class has {known}. Give the class the "
            f"option concurrency_groups, a dict from names to how many calls run at a time."
        )


def method(**options: Any) -> Callable[[Function], Function]:
    """Options of a method of a remote class, as a decorator.

    Example:
        >>> @hpcfut.remote
        ... class Divider:
        ...     @hpcfut.method(num_returns=2)
        ...     def divide(self, a, b):
        ...         return divmod(a, b)
        >>> hpcfut.get(Divider.remote().divide.remote(7, 3))
        [2, 1]

    Args:
        **options: ``num_returns`` (a number, or "streaming", which is the default for generators, async ones too),
            ``concurrency_group`` (one of those that the class has), ``max_task_retries`` (what the class says) and
            ``retry_exceptions`` (False, True, a type or a list of types), ``generator_backpressure_num_objects`` (64),
            ``name``, which messages use.

    Raises:
        ValueError: An option is unknown, or its value makes no sense.
        TypeError: It was used without options.
    """
    checked = MethodOptions().updated(options)

    def mark(function: Function) -> Function:
        setattr(function.__func__ if isinstance(function, classmethod | staticmethod) else function, _MARK, checked)
        return function

    return mark
