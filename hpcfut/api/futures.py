"""``ref.future()``: refs for code that knows ``concurrent.futures``."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from hpcfut.api.calls import rebuild
from hpcfut.api.refs import id_of
from hpcfut.api.session import runtime_of
from hpcfut.runtime.watching import unwatch, watch

if TYPE_CHECKING:
    from hpcfut.api.refs import ObjectRef

Value = TypeVar("Value")


class RefFuture(Future[Value]):
    """A future that the callback thread of the runtime brings to its end, or who waits for its result."""

    def __init__(self, ref: ObjectRef[Value]) -> None:
        super().__init__()
        self._ref = ref
        self._runtime = runtime = runtime_of(ref)
        #: Taken by who brings it to its end.
        self._settling = threading.Lock()
        runtime.callbacks.start()
        self._watch_id = watch(runtime, [id_of(ref)], self._tell, is_fetching=True, is_waiting=True)
        runtime.engine.hear()
        runtime.engine.watchers.on_leave()

    def cancel(self) -> bool:
        """Cancel the task, if it has not ended; gives whether the future is cancelled now."""
        if not super().cancel():
            return False
        unwatch(self._runtime, self._watch_id)
        if not self._runtime.is_over:
            self._runtime.cancel(id_of(self._ref), is_recursive=True)
        self._runtime.callbacks.post(self._settle_cancelled)
        return True

    def result(self, timeout: float | None = None) -> Value:
        """The value; a task that asks lends its slot meanwhile."""
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that ``result`` would raise, or None."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Wait as ``get`` does, and settle the future if nobody else does; gives what is left of the time."""
        runtime = self._runtime
        if self.done() or runtime.is_over:
            return timeout
        until = None if timeout is None else runtime.now() + timeout
        ready = runtime.wait([id_of(self._ref)], 1, timeout, is_fetching=True, is_taking=True)
        if ready is not None:
            self._settle(ready.values)
        return None if until is None else max(until - runtime.now(), 0.0)

    def _tell(self, object_ids: list[int], values: list[Any]) -> None:
        self._runtime.callbacks.post(lambda: self._settle(values))

    def _settle(self, values: list[Any]) -> None:
        if not self._settling.acquire(blocking=False) or not self.set_running_or_notify_cancel():
            return
        try:
            if not values:
                self._runtime.demand_session()
            value = rebuild(self._runtime, values[0])
        except BaseException as error:  # Whatever the value's own code raises, too, is what `result` raises.
            self.set_exception(error)
        else:
            self.set_result(value)

    def _settle_cancelled(self) -> None:
        """Tell those who wait for the future."""
        if self._settling.acquire(blocking=False):
            self.set_running_or_notify_cancel()
