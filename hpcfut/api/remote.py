"""Remote functions: ``@remote``, ``.remote()``, ``.options()``."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, overload

from hpcfut.api.actor_options import ActorOptions
from hpcfut.api.actors import ActorClass
from hpcfut.api.generators import ObjectRefGenerator
from hpcfut.api.options import STREAMED, NodeAffinitySchedulingStrategy, Options
from hpcfut.api.refs import ObjectRef
from hpcfut.api.session import current
from hpcfut.model.template import STREAMING, TaskTemplate

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime

#: One thread at a time registers functions. Re-entrant, because pickling one may run code of the user's.
_REGISTERING: Final = threading.RLock()
#: So many variants of a function are kept registered.
N_VARIANTS_MAX: Final = 64


class RemoteFunction:
    """A function whose calls run as tasks. ``f.remote(...)`` submits one and returns its ref at once.

    Example:
        >>> double = hpcfut.remote(lambda x: 2 * x)
        >>> isinstance(double, hpcfut.RemoteFunction)
        True
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self._function = function
        self._options = options
        #: What ``options`` has made of it.
        self._variants: dict[tuple[tuple[str, type, Any], ...], RemoteFunction] = {}
        self._runtime: Runtime | None = None
        self._template_id = 0
        n_returns = options.num_returns
        if n_returns is None:
            n_returns = STREAMED if inspect.isgeneratorfunction(function) else 1
        self._is_streaming = n_returns == STREAMED
        if self._is_streaming and options.is_isolated:
            raise ValueError(
                f'{self._name} is a generator, and a task with isolation="process" gives all its results at its end. '
                f"Return them in a list, or leave isolation out."
            )
        #: How many refs a call begins with; a generator has one in reserve, which tells its end.
        self._n_returns = options.generator_backpressure_num_objects + 1 if self._is_streaming else int(n_returns)
        self.__name__ = self._name
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """A remote function cannot be called directly, so that nobody mistakes one for the other."""
        raise TypeError(
            f"The remote function {self._name} cannot be called directly. Call {self._name}.remote(...) to run it as a "
            f"task, or keep the plain function under another name: g = remote(f)."
        )

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a task.

        Refs among the arguments are replaced by their values before the task runs; refs deeper inside are passed as
        refs. Arguments are snapshots: changing them afterwards does not change what the task gets.

        Example:
            >>> double = hpcfut.remote(lambda x: 2 * x)
            >>> hpcfut.get(double.remote(double.remote(5)))
            20

        Returns:
            The ref of the result; a list of refs if ``num_returns`` is more than 1; ``None`` if it is 0; an
            ``ObjectRefGenerator`` if it is "streaming", which is the default for generator functions.

        Raises:
            UnpicklableError: An argument, or the function itself, cannot be sent to another rank.
        """
        runtime = self._runtime
        if runtime is None or runtime.engine.end is not None:
            runtime = self._register()
        return_ids = runtime.submit(self._template_id, self._n_returns, args, kwargs)
        released = runtime.released
        if self._n_returns == 1:
            return ObjectRef(return_ids[0], released)
        if self._is_streaming:
            return ObjectRefGenerator(return_ids, runtime)
        return [ObjectRef(return_id, released) for return_id in return_ids] or None

    def options(self, **given: Any) -> RemoteFunction:
        """The same function with other options: ``f.options(num_returns=2).remote(...)``.

        Equal options give one and the same remote function, so that this may stand in a loop: the function is sent to
        the ranks once.

        Example:
            >>> divide = hpcfut.remote(divmod).options(num_returns=2)
            >>> hpcfut.get(divide.remote(7, 3))
            [2, 1]

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        # Values that are equal are not always the same: True is no number of CPUs.
        key = tuple((name, type(value), value) for name, value in given.items())
        try:
            found = self._variants.get(key)
        except TypeError:  # A dict of resources, say.
            return RemoteFunction(self._function, self._options.updated(given))
        if found is None:
            found = RemoteFunction(self._function, self._options.updated(given))
            if len(self._variants) >= N_VARIANTS_MAX:
                self._variants.clear()
            self._variants[key] = found
        return found

    @property
    def _name(self) -> str:
        return self._options.name or getattr(self._function, "__qualname__", repr(self._function))

    def _register(self) -> Runtime:
        runtime = current()
        with _REGISTERING:
            if self._runtime is not runtime:  # Another thread may have been faster.
                self._template_id = self._define(runtime)
                self._runtime = runtime
        return runtime

    def _define(self, runtime: Runtime) -> int:
        options = self._options
        strategy = options.scheduling_strategy
        affinity, is_soft = -1, False
        if isinstance(strategy, NodeAffinitySchedulingStrategy):
            affinity, is_soft = strategy.node_id, strategy.soft

        def make_template(
            template_id: int, function: bytes, nested: tuple[int, ...], retry_exceptions: bytes
        ) -> TaskTemplate:
            return TaskTemplate(
                template_id=template_id,
                name=self._name,
                function=function,
                nested=nested,
                n_returns=STREAMING if self._is_streaming else self._n_returns,
                resources=options.amounts(),
                affinity=affinity,
                affinity_soft=is_soft,
                spread=strategy == "SPREAD",
                n_retries_max=options.max_retries if options.max_retries >= 0 else sys.maxsize,
                retry_exceptions=retry_exceptions,
                env_vars=options.env_vars(),
                is_isolated=options.is_isolated,
                n_calls_max=options.max_calls,
            )

        return runtime.define(make_template, self._function, options.retried())

    def __del__(self) -> None:
        runtime = getattr(self, "_runtime", None)
        if runtime is not None:
            runtime.forget(self._template_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)


@overload
def remote(function: type, /) -> ActorClass: ...  # type: ignore[overload-overlap]  # A class can be called, too.
@overload
def remote(function: Callable[..., Any], /) -> RemoteFunction: ...
@overload
def remote(**options: Any) -> Callable[[Any], Any]: ...


def remote(function: Any = None, /, **options: Any) -> Any:
    """Make a function or a class remote, as a decorator with or without options.

    Example:
        >>> @hpcfut.remote
        ... def square(x):
        ...     return x * x
        >>> hpcfut.get(square.remote(4))
        16

    Args:
        function: The function, or the class.
        **options: Of a function: ``num_returns`` (a number, or "streaming", which is the default for generators),
            ``num_cpus`` (1), ``num_gpus``, ``memory`` (bytes), ``resources``, ``name``, ``scheduling_strategy``;
            ``max_retries`` (3, -1: no limit) and ``retry_exceptions`` (False, True, a type or a list of types);
            ``generator_backpressure_num_objects`` (64), how far a generator may be ahead of who takes its refs;
            ``runtime_env`` (``{"env_vars": {…}}``);
            ``isolation`` ("none"): with "process" the code runs in a child process of the rank, and whatever ends
            that, a crash in C say, costs this task alone, which is tried again (``max_retries``) or raises
            ``WorkerCrashedError``. More private memory than ``memory``, if that is given, ends it as well
            (``OutOfMemoryError``). There the code has ``get``, ``put``, ``wait``, ``cancel`` and remote functions, but
            no ``as_completed`` and no MPI, and it is no generator. ``max_calls`` (0: no limit): the process ends after
            so many calls of the function, with what they have leaked.

            Of a class: ``num_cpus`` (1 to be placed, and none that it holds; what is given is held for life),
            ``num_gpus``, ``memory``, ``resources``, ``scheduling_strategy`` and ``runtime_env`` as for functions;
            ``max_concurrency`` (1, and 1000 for a class with ``async`` methods) and ``concurrency_groups`` (a dict
            from names to numbers), how many calls run at a time; ``max_restarts`` and ``max_task_retries`` (0, -1: no
            limit), what happens when its rank dies; ``max_pending_calls`` (-1: no limit), beyond which calls raise
            ``PendingCallsLimitExceededError``; ``allow_out_of_order_execution`` (False): calls do not wait for earlier
            ones of the same caller; ``name``, ``namespace``, ``get_if_exists`` (False) and ``lifetime``
            ("non_detached", or "detached": until the job ends).

    Raises:
        TypeError: This is neither a function nor a class.
        ValueError: An option is unknown, or its value makes no sense.
    """
    if function is None:
        _check(options)
        return lambda decorated: _make(decorated, options)
    return _make(function, {})


def _check(options: dict[str, Any]) -> None:
    """Refuse at once what makes sense neither for a function nor for a class."""
    try:
        Options().updated(options)
    except ValueError:
        of_classes = {name for name in options if name not in Options.__struct_fields__}
        if not of_classes or not of_classes <= {*ActorOptions.__struct_fields__}:
            raise
        ActorOptions().updated(options)


def _make(function: Any, options: dict[str, Any]) -> Any:
    if isinstance(function, ActorClass):
        raise TypeError(f"{function!r} is a remote class already; use .options(...) to change its options.")
    if inspect.isclass(function):
        return ActorClass(function, ActorOptions().updated(options))
    return _make_function(function, Options().updated(options))


def _make_function(function: Any, options: Options) -> RemoteFunction:
    if isinstance(function, RemoteFunction):
        raise TypeError(f"{function._name} is a remote function already; use .options(...) to change its options.")
    if not callable(function):
        raise TypeError(f"@remote was given {function!r}; give it a function or a class.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"@remote was given {function!r}, which is async; a task runs on a thread of its own, without an event "
            f"loop. Make it a plain function, which may call asyncio.run(...)."
        )
    return RemoteFunction(function, options)
