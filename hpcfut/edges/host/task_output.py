"""What tasks print: whole lines, each behind the rank that it comes from, as ``(rank 3) text``.

``sys.stdout`` and ``sys.stderr`` are replaced by wrappers, so that ``print``, warnings and the handlers of ``logging``
all pass here. What a driver prints goes through unchanged, progress bars included. A task is known by its thread. On a
rank without a driver everything comes from tasks, or from threads that they have started; on the driver's rank such
threads pass for the driver's.

* A line is written when it is complete, by one write, at once: launchers pass on what they find in a rank's pipe, and
  what was written by one write of up to 4 kB they find in one piece. So lines of several ranks are not mixed, and what
  a rank has printed is not lost when it crashes.
* What has no end of line yet is kept until it has one, or until the task ends. Of what a carriage return overwrites, a
  progress bar in a task say, only the last state is shown.
* What C code and child processes write goes to the descriptors, past this.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, TextIO, cast

#: A line that gets longer than this without coming to its end is broken.
N_CHARACTERS_HELD_MAX: Final = 1 << 16


class TaskOutput:
    """Both streams of one rank."""

    def __init__(self, rank: int) -> None:
        self.prefix = f"(rank {rank}) "
        self.lock = threading.RLock()
        #: In a forked child nobody says when a task has ended.
        self.is_copy = False
        #: Of the calling thread: the task, another number below zero for anything else that is not the driver's, or 0.
        self.source: Callable[[], int] = _nobody
        #: Called with a task that has begun a line; ``finish`` is to be called in the end.
        self.on_begun: Callable[[int], None] = _ignore
        self._wrappers: list[_Lines] = []
        os.register_at_fork(after_in_child=self._become_copy)

    def install(self, task_of_thread: Callable[[], int], on_begun: Callable[[int], None], *, is_driver: bool) -> None:
        """Begin. ``task_of_thread`` gives 0 where there is none."""
        self.source = task_of_thread if is_driver else lambda: task_of_thread() or -threading.get_ident()
        self.on_begun = on_begun
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Lines):
                wrapper = _Lines(name, stream, self)
                self._wrappers.append(wrapper)
                setattr(sys, name, wrapper)
                _redirect_logging(stream, wrapper)

    def finish(self, source: int) -> None:
        """This task has ended: a line that it has begun is over."""
        for wrapper in self._wrappers:
            wrapper.finish(source)

    def finish_all(self) -> None:
        """Nobody prints any more, as far as is known here."""
        for wrapper in self._wrappers:
            wrapper.finish_all()

    def remove(self) -> None:
        """End: give the streams back. Who still holds a wrapper prints through it, as if it were not there."""
        self.finish_all()
        self.source, self.on_begun = _nobody, _ignore
        for name in ("stdout", "stderr"):
            wrapper = getattr(sys, name)
            if wrapper in self._wrappers:
                # print() only borrows what it finds as sys.stdout: a thread that is inside must not lose it.
                with suppress(AttributeError):
                    vars(wrapper.stream).setdefault("hpcfut_lines", []).append(wrapper)
                setattr(sys, name, wrapper.stream)
                _redirect_logging(wrapper, wrapper.stream)
        self._wrappers.clear()

    def _become_copy(self) -> None:
        # Another thread may have had the lock; and what tasks of the rank have begun, the rank will end.
        self.lock = threading.RLock()
        self.is_copy = True
        for wrapper in self._wrappers:
            wrapper.forget_all()


class _Lines:
    """In place of one stream."""

    def __init__(self, name: str, stream: TextIO, output: TaskOutput) -> None:
        self._name = name
        self.stream = stream
        self._output = output
        #: Source → the line that it has begun.
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Print; what is no text is left to the stream to complain about."""
        source = self._output.source()
        if not source or not isinstance(text, str):
            return self.stream.write(text)
        with self._output.lock:
            *whole, rest = (self._begun.pop(source, "") + text).split("\n")
            if rest:
                rest = _visible(rest)
                if len(rest) > N_CHARACTERS_HELD_MAX:
                    whole.append(rest)
                else:
                    self._begun[source] = rest
                    if source > 0:
                        self._output.on_begun(source)
            for line in whole:
                self._print(line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Print each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Whole lines have left already; a begun one waits for its end."""
        if self._output.is_copy:
            self.finish_all()
        self.stream.flush()

    def finish(self, source: int) -> None:
        """Print the line that this source has begun, if it has."""
        with self._output.lock:
            line = self._begun.pop(source, "")
            if line:
                # Whoever ends need not hear that nobody reads any more.
                with suppress(OSError, ValueError):
                    self._print(line)

    def finish_all(self) -> None:
        """Print all lines that have been begun."""
        for source in list(self._begun):
            self.finish(source)

    def forget_all(self) -> None:
        """Drop them."""
        self._begun.clear()

    def _print(self, line: str) -> None:
        self.stream.flush()  # What a driver has printed before does not share the write.
        self.stream.write(f"{self._output.prefix}{_visible(line).rstrip(chr(13))}\n")
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # In a function that is sent to another rank it stands for the stream of that rank.
        return _stream_here, (self._name,)


def _stream_here(name: str) -> Any:
    return getattr(sys, name)


def _visible(line: str) -> str:
    """What of it no carriage return overwrites; one at the end may be half of an end of line."""
    return line[line.rstrip("\r").rfind("\r") + 1 :]


def _redirect_logging(old: object, new: object) -> None:
    """Handlers that the script has made already hold the stream that they found."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if getattr(handler, "stream", None) is old:
                handler.stream = cast(TextIO, new)


def _nobody() -> int:
    return 0


def _ignore(source: int) -> None:
    pass
