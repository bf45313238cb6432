"""Microseconds of the codec and of pickling, without MPI:  python benchmarks/wire.py"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
from common import append_json_line, hash_of, parse_options, print_table

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


Operations = dict[str, Callable[[], Any]]


def operations_of_frame(batch: list[Message]) -> Operations:
    """Making and reading a frame."""
    frame = encode_frame(5, batch)
    if decode_frame(frame)[1] != batch:
        raise RuntimeError(f"A frame of {batch[:1]} came back as something else.")
    return {"encode": lambda: encode_frame(5, batch), "decode": lambda: decode_frame(frame)}


def operations_of_value(value: Any) -> Operations:
    """Pickling a value, small and large, and rebuilding it."""
    pickled = PICKLING.dumps(value)
    payload = pack_inline(pickled)
    room = memoryview(bytearray(pickled.nbytes))
    if type(PICKLING.loads(payload)) is not type(value):
        raise RuntimeError(f"A {type(value)} came back as a {type(PICKLING.loads(payload))}.")
    return {
        "dumps": lambda: PICKLING.dumps(value),
        "inline": lambda: pack_inline(pickled),
        "into": lambda: pack_into(pickled, room),
        "loads": lambda: PICKLING.loads(payload),
    }


def operations_of_call(call: tuple[tuple[Any, ...], dict[str, Any]]) -> Operations:
    """Pickling the arguments of a call and rebuilding them."""
    args, kwargs = call
    pickled, arguments = PICKLING.dumps_call(args, kwargs)
    payload = pack_inline(pickled)
    return {
        "dumps": lambda: PICKLING.dumps_call(args, kwargs),
        "inline": lambda: pack_inline(pickled),
        "loads": lambda: PICKLING.loads_call(payload, arguments),
    }


def microseconds(function: Callable[[], Any], duration_s: float) -> list[float]:
    """Five means."""
    timer = timeit.Timer(function)
    n_calls = max(1, int(duration_s / 5 / max(timer.timeit(1), 1e-6)))
    return [seconds / n_calls * 1e6 for seconds in timer.repeat(5, n_calls)]


def measure(what: str, named: dict[str, Operations], duration_s: float) -> dict[str, list[float]]:
    """Measures and prints one table; gives its figures."""
    rows: list[tuple[str, ...]] = [(what, *next(iter(named.values())))]
    figures: dict[str, list[float]] = {}
    for name, operations in named.items():
        found = {operation: microseconds(function, duration_s) for operation, function in operations.items()}
        rows.append((name, *(f"{min(values):.2f}" for values in found.values())))
        figures |= {f"{name}: {operation}, µs": values for operation, values in found.items()}
    print_table(rows)
    return figures


def main() -> None:
    """Three tables."""
    options = parse_options("Microseconds of the codec and of pickling.", n_rounds=1)
    duration_s = 0.001 if options.small else 0.3
    print("microseconds, best of 5")
    figures = (
        measure("frame", {name: operations_of_frame(batch) for name, batch in FRAMES.items()}, duration_s)
        | measure("value", {name: operations_of_value(value) for name, value in VALUES.items()}, duration_s)
        | measure("call", {name: operations_of_call(call) for name, call in CALLS.items()}, duration_s)
    )
    print(f"result hash {hash_of(list(figures))}")
    append_json_line(options.output, benchmark="wire", figures=figures)


if __name__ == "__main__":
    main()
