"""Microseconds per operation of the codec and of pickling:  python benchmarks/wire.py [--small]."""

from __future__ import annotations

import argparse
import hashlib
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcfut.wire.codec import decode_frame, encode_frame
from hpcfut.wire.messages import Message, TaskDone, TaskPushed
from hpcfut.wire.pickling import Pickling, pack_inline, pack_into

FIRST_ID = 3 << 44


class Ref:
    """Stands for the user's handle."""

    def __init__(self, object_id: int) -> None:
        self.object_id = object_id


class Script:
    """A class that goes by value, as any class of a script."""

    def method(self) -> None:
        pass


PICKLING = Pickling(Ref, lambda ref: ref.object_id, Ref)

FRAMES: dict[str, list[Message]] = {
    "TaskDone": [TaskDone(FIRST_ID, b"\x80\x05K\x01.")],
    "TaskPushed": [TaskPushed(task_id=FIRST_ID, lease_id=5, template_id=FIRST_ID, payload=b"\x80\x05K\x01.")],
    "64 TaskDone": [TaskDone(FIRST_ID + n, b"\x80\x05K\x01.") for n in range(64)],
    "TaskDone with 100 kB": [TaskDone(FIRST_ID, bytes(100_000))],
}

VALUES: dict[str, Any] = {
    "None": None,
    "3 atoms": (1, 2.0, "three"),
    "array of 800 B": np.arange(100.0),
    "array of 8 kB": np.arange(1000.0),
    "array of 8 MB": np.arange(1e6),
    "bytes of 8 MB": bytes(8_000_000),
    "dict with array of 8 kB": {"a": 1, "b": np.arange(1000.0)},
    "list of 1,000,000 ints": list(range(1_000_000)),
    "list of 10,000 refs": [Ref(n) for n in range(10_000)],
    "lambda": lambda x: x + 1,
    "instance of a script's class": Script(),
}

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "f()": ((), {}),
    "f(1)": ((1,), {}),
    "f(1, a=2)": ((1,), {"a": 2}),
    "f(ref)": ((Ref(1),), {}),
    "f(array of 8 kB)": ((np.arange(1000.0),), {}),
    "f([1, 2])": (([1, 2],), {}),
}


def measure(function: Callable[[], Any], duration_s: float) -> float:
    """The best of five means, in microseconds."""
    timer = timeit.Timer(function)
    n_calls = max(1, int(duration_s / 5 / max(timer.timeit(1), 1e-6)))
    return min(timer.repeat(5, n_calls)) / n_calls * 1e6


def measure_frames(duration_s: float, result: Any) -> None:
    print(f"{'frame':32}{'encode':>10}{'decode':>10}")
    for name, batch in FRAMES.items():
        frame = encode_frame(5, batch)
        result.update(frame)
        encode = measure(lambda batch=batch: encode_frame(5, batch), duration_s)  # type: ignore[misc]
        decode = measure(lambda frame=frame: decode_frame(frame), duration_s)  # type: ignore[misc]
        print(f"{name:32}{encode:10.2f}{decode:10.2f}")


def measure_values(duration_s: float, result: Any) -> None:
    print(f"{'value':32}{'dumps':>10}{'inline':>10}{'into':>10}{'loads':>10}")
    for name, value in VALUES.items():
        pickled = PICKLING.dumps(value)
        payload = pack_inline(pickled)
        result.update(name.encode() + bytes(payload[-64:]))
        room = memoryview(bytearray(pickled.nbytes))
        operations: list[Callable[[], Any]] = [
            lambda value=value: PICKLING.dumps(value),  # type: ignore[misc]
            lambda pickled=pickled: pack_inline(pickled),  # type: ignore[misc]
            lambda pickled=pickled, room=room: pack_into(pickled, room),  # type: ignore[misc]
            lambda payload=payload: PICKLING.loads(payload),  # type: ignore[misc]
        ]
        print(f"{name:32}" + "".join(f"{measure(operation, duration_s):10.2f}" for operation in operations))


def measure_calls(duration_s: float, result: Any) -> None:
    print(f"{'call':32}{'dumps':>10}{'inline':>10}{'loads':>10}")
    for name, (args, kwargs) in CALLS.items():
        pickled, arguments = PICKLING.dumps_call(args, kwargs)
        payload = pack_inline(pickled)
        result.update(payload)
        operations: list[Callable[[], Any]] = [
            lambda args=args, kwargs=kwargs: PICKLING.dumps_call(args, kwargs),  # type: ignore[misc]
            lambda pickled=pickled: pack_inline(pickled),  # type: ignore[misc]
            lambda payload=payload, arguments=arguments: PICKLING.loads_call(payload, arguments),  # type: ignore[misc]
        ]
        print(f"{name:32}" + "".join(f"{measure(operation, duration_s):10.2f}" for operation in operations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="only see that it runs")
    duration_s = 0.001 if parser.parse_args().small else 0.3
    result = hashlib.sha256()
    print("microseconds, best of 5")
    for part in (measure_frames, measure_values, measure_calls):
        part(duration_s, result)
    print(f"result {result.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
