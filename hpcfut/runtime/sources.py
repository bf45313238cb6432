"""Sources: arrays that user code fills where and when they are wanted, right in the memory that they are stored in.

The recipe of such an array is a pickled function with the shape and the type of the array, and further arguments. Who
wants the array has the function called on a thread of this module, because it takes longer than a turn may: these
threads live for as long as there is something to read, and keep no task and no turn waiting. What the function raises
is raised by whoever wants the array.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from hpcfut.core.effects import ReadSource
from hpcfut.core.events import Event, ReadCompleted, ReadFailed, SourcePut
from hpcfut.model.failure import LOST, RAISED, Failure
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.executor import Executor
from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.outcomes import trace_of
from hpcfut.wire.exceptions import encodable
from hpcfut.wire.packing import pack_inline
from hpcfut.wire.pickling import blank_of

#: So many arrays are filled at a time; on file systems of clusters several readers are faster than one.
N_THREADS: Final = 4
#: Tasks that seem to stand on a thread that fills an array: it must not wait for other tasks.
N_NESTED_IN_READER: Final = 1 << 30


def demand_no_reader(n_nested: int) -> None:
    """Refuse a wait without a deadline on a thread of this module; the number tells these from others.

    Raises:
        RuntimeError: It is one.
    """
    if n_nested >= N_NESTED_IN_READER:
        raise RuntimeError(
            "The function of a lazy_array() called get() or wait(). It runs beside tasks, which may wait for it in "
            "turn: make what it needs before, and pass the array on by a task."
        )


class Sources:
    """Makes recipes, and performs what the core wants to be read by them."""

    def __init__(self, engine: Engine, executor: Executor, ids: Iterator[int], nbytes_recipe_max: int) -> None:
        self._engine = engine
        self._executor = executor
        self._pickling = executor.pickling
        self._ids = ids
        self._nbytes_recipe_max = nbytes_recipe_max
        self._lock = threading.Lock()
        self._works: deque[ReadSource] = deque()
        self._threads: dict[threading.Thread, None] = {}
        self._is_closed = False
        engine.on_read_source = self.read

    def put(self, fill: Callable[..., object], shape: Any, dtype: Any, args: tuple[Any, ...]) -> int:
        """An array that ``fill(array, *args)`` fills where it is wanted; returns its id, which the caller holds once.

        Raises:
            TypeError: There is no such array, or ``fill`` is no function, or the arguments have refs inside.
            ValueError: There is no such array, or the arguments are large.
            UnpicklableError: The function or an argument cannot be sent to another rank.
        """
        if not callable(fill):
            raise TypeError(f"lazy_array() was given {fill!r}, which cannot be called. Give it a function that fills.")
        blank = blank_of(shape, dtype, "C", 0)
        if not blank.nbytes:
            raise ValueError(
                f"lazy_array() was given the shape {shape!r} and the dtype {dtype!r}. Sizes must not be negative, "
                f"elements must not be Python objects, and the dtype must not have metadata."
            )
        named: list[tuple[str, Any]] = [("the function of a lazy_array()", fill)]
        named += [(f"argument {number} of the function of a lazy_array()", value) for number, value in enumerate(args)]
        recipe = self._pickling.dumps_parts((fill, blank, args), named)
        if recipe.contained:
            raise TypeError(
                "lazy_array() was given refs inside its arguments. The function runs beside tasks and cannot get() "
                "them: make such an array with a task."
            )
        if recipe.nbytes > self._nbytes_recipe_max:
            raise ValueError(
                f"lazy_array() was given a function and arguments of {recipe.nbytes} bytes, which travel with every "
                f"ref. Up to {self._nbytes_recipe_max} are allowed: name the data instead, by a path for instance."
            )
        object_id = next(self._ids)
        self._engine.post(SourcePut(object_id, pack_inline(recipe), blank.nbytes))
        return object_id

    def read(self, effect: ReadSource) -> None:
        """Have an array filled; called with the engine's lock."""
        with self._lock:
            self._works.append(effect)
            if len(self._threads) < N_THREADS:
                thread = threading.Thread(target=self._run, name="hpcfut-reading", daemon=True)
                self._threads[thread] = None
                try:
                    thread.start()
                except RuntimeError as error:  # There are too many, or Python is about to end, and the session with it.
                    del self._threads[thread]
                    if not self._threads:
                        self._works.clear()
                        text = f"An array could not be read, because no thread could be started for that: {error}."
                        self._engine.mailbox.append(ReadFailed(effect.transfer_id, Failure(LOST, text)))

    def close(self, deadline: float) -> None:
        """The session is over: nothing more is read, and what is being read is waited for, but not for ever."""
        with self._lock:
            self._is_closed = True
            self._works.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        self._executor.current.n_nested = N_NESTED_IN_READER
        with fatal("a thread that reads arrays"):
            while True:
                with self._lock:
                    if not self._works or self._is_closed:
                        del self._threads[threading.current_thread()]
                        return
                    effect = self._works.popleft()
                event = self._read(effect)
                with self._lock:
                    if isinstance(event, ReadCompleted) and not self._is_closed:
                        self._engine.window.seal(effect.offset, effect.object_id, effect.nbytes)
                self._engine.post(event)

    def _read(self, effect: ReadSource) -> Event:
        try:
            fill, blank, args = self._pickling.loads(effect.recipe)
            array = blank.over(self._engine.window.buffer(effect.offset, effect.nbytes))
            fill(array, *args)
            array.flags.writeable = False
        except BaseException as error:  # User code may raise anything, and who waits for the array must be told.
            text = f"An array could not be read on rank {self._engine.core.context.rank}:\n{trace_of(error)}"
            payload = self._pickling.dumps_exception(BaseException.with_traceback(error, None))
            return ReadFailed(effect.transfer_id, Failure(RAISED, encodable(text), payload))
        return ReadCompleted(effect.transfer_id)
