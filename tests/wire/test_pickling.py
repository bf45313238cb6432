import array
import copyreg
import enum
import functools
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcfut.model.errors import HpcfutError
from hpcfut.wire.pickling import (
    EMPTY_CALL,
    Pickling,
    StandInError,
    UnloadableError,
    UnpicklableError,
    pack_inline,
    pack_into,
)

ROOT = Path(__file__).parents[2]


class Ref:
    def __init__(self, object_id):
        self.object_id = object_id

    def __eq__(self, other):
        return isinstance(other, Ref) and other.object_id == self.object_id

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self):
        raise AssertionError("a ref was pickled by itself")


PICKLING = Pickling(Ref, lambda ref: ref.object_id, Ref)


def buffer_of(room: Any) -> memoryview:
    return memoryview(room)


def inline(value):
    return PICKLING.loads(pack_inline(PICKLING.dumps(value)))


def stored(value):
    """Through memory that others write, as a window is."""
    pickled = PICKLING.dumps(value)
    room = bytearray(pickled.nbytes)
    pack_into(pickled, buffer_of(room))
    return PICKLING.loads(buffer_of(room).toreadonly())


@pytest.fixture(params=[inline, stored])
def through(request):
    return request.param


@dataclass
class Point:
    x: Any
    y: Any


class Colour(enum.Enum):
    RED = 1


# --- plain values ---


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**80,
        1.5,
        2j,
        "text",
        b"",
        b"bytes",
        (),
        (1, "two", (3.0, (None,))),
        tuple(range(100)),
        [1, [2]],
        {"a": {1, 2}},
        bytearray(b"mutable"),
        range(3),
        Point(1, [2]),
        Colour.RED,
        array.array("i", [1, 2]),
        Ellipsis,
        NotImplemented,
    ],
    ids=repr,
)
def test_values_come_back(through, value):
    twin = through(value)
    assert twin == value
    assert type(twin) is type(value)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [10, 65_535, 65_536, 3_000_000])
def test_bytes_come_back_as_themselves(through, kind, size):
    value = kind(b"x") * size
    twin = through(value)
    assert twin == value
    assert type(twin) is kind
    if size > 65_536:
        assert PICKLING.dumps(value).buffers


def test_a_payload_without_buffers_is_the_stream_itself():
    for value in (1, [1, 2], Point(1, 2)):
        pickled = PICKLING.dumps(value)
        assert pack_inline(pickled) is pickled.stream
        assert pickled.nbytes == len(pickled.stream)
        assert pickle.loads(pickled.stream) == value


def test_nbytes_is_exact():
    for value in (1, Ref(1), [Ref(1), np.arange(1000)], [np.zeros(n, "u1") for n in range(1020, 1100)]):
        pickled = PICKLING.dumps(value)
        room = bytearray(pickled.nbytes)
        pack_into(pickled, buffer_of(room))
        assert pack_inline(pickled) == room


def test_pickling_is_repeatable_and_leaves_the_value_alone():
    value: list[Any] = [Point(1, np.arange(300)), Ref(3)]
    assert pack_inline(PICKLING.dumps(value)) == pack_inline(PICKLING.dumps(value))
    assert value[0].y.flags.writeable


def test_sharing_inside_a_value_is_kept(through):
    part = np.arange(1000)
    for value in ((part, part), [part, part], ((part,), (part,))):
        first, second = through(value)
        assert first[0] is second[0] if isinstance(first, tuple) else first is second
    loop: list[Any] = []
    loop.append(loop)
    twin = through(loop)
    assert twin[0] is twin


def test_registered_reducers_count(through):
    class Odd:
        pass

    copyreg.dispatch_table[Odd] = lambda odd: (int, ("7",))
    try:
        assert through([Odd()]) == [7]
    finally:
        del copyreg.dispatch_table[Odd]


# --- arrays ---


def assert_same_array(twin, value):
    assert type(twin) is type(value)
    assert twin.dtype == value.dtype
    assert twin.shape == value.shape
    np.testing.assert_array_equal(np.asarray(twin), np.asarray(value))
    assert not twin.flags.writeable
    if isinstance(twin, np.ndarray) and not twin.dtype.hasobject and twin.dtype.itemsize:
        with pytest.raises(ValueError, match="WRITEABLE"):
            twin.flags.writeable = True


ARRAYS = {
    "small": np.arange(3.0),
    "large": np.arange(10_000.0),
    "huge": np.arange(400_000),
    "matrix": np.arange(600).reshape(20, 30),
    "scalar": np.array(5),
    "empty": np.zeros(0),
    "empty-2d": np.zeros((0, 3), "f4"),
    "empty-f": np.zeros((3, 0, 2), order="F"),
    "bool": np.arange(2000) % 3 == 0,
    "complex": np.ones(500, "c16"),
    "half": np.ones(1500, "f2"),
    "long": np.ones(500, "g"),
    "foreign-order": np.arange(500, dtype=">i8"),
    "text": np.array(["ab", "c"] * 500),
    "bytes": np.array([b"ab", b"c"] * 1000),
    "no-width": np.zeros(3, "V0"),
    "time": np.arange(500).astype("M8[ns]"),
    "time-small": np.arange(3).astype("M8[D]"),
    "time-f": np.asfortranarray(np.arange(600).astype("m8[s]").reshape(20, 30)),
    "records": np.zeros(300, [("a", "i4"), ("t", "M8[us]"), ("m", "f8", (2, 2))]),
    "records-small": np.ones(3, [("a", "i1"), ("b", "f8")]),
    "padded": np.ones(300, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "objects": np.array([1, "x", None, [2]], dtype=object),
    "objects-2d": np.array([[1, "x"], [None, 2.0]], dtype=object, order="F"),
    "strided": np.arange(2000)[::2],
    "reversed": np.arange(1000)[::-1],
    "column": np.arange(60_000).reshape(200, 300)[:, 3],
    "transposed-3d": np.arange(6000).reshape(10, 20, 30).transpose(1, 2, 0),
    "broadcast": np.broadcast_to(np.arange(30), (40, 30)),
    "strided-time": np.arange(2000).astype("M8[s]")[::2],
    "strided-records": np.zeros(300, [("a", "i4"), ("b", "f8")])["b"],
    "read-only": np.frombuffer(bytes(2000), "u1"),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("box", [lambda part: part, lambda part: [part], lambda part: {"a": (part,)}], ids="123")
def test_arrays_come_back_read_only(through, name, box):
    twin = through(box(ARRAYS[name]))
    while not isinstance(twin, np.ndarray):
        twin = next(iter(twin.values())) if isinstance(twin, dict) else twin[0]
    assert_same_array(twin, ARRAYS[name])


@pytest.mark.parametrize("box", [lambda part: part, lambda part: [part]], ids="12")
@pytest.mark.parametrize("shape", [(10, 3), (40, 50)])
def test_fortran_order_is_kept(through, box, shape):
    value = np.asfortranarray(np.arange(shape[0] * shape[1]).reshape(shape))
    twin = through(box(value))
    twin = twin if isinstance(twin, np.ndarray) else twin[0]
    assert twin.flags.f_contiguous
    assert not twin.flags.c_contiguous
    assert_same_array(twin, value)


def test_large_arrays_are_aligned_views_over_the_payload():
    value = {"a": np.arange(200), "b": np.arange(1001, dtype="u1"), "c": np.arange(300), "d": np.ones(9999, "i1")}
    pickled = PICKLING.dumps(value)
    assert len(pickled.buffers) == 3
    for view, name in zip(pickled.buffers, "acd", strict=True):
        assert np.shares_memory(np.asarray(view), value[name])
    room = np.zeros(pickled.nbytes + 64, "u1")
    start = -room.ctypes.data % 64
    room = room[start : start + pickled.nbytes]
    pack_into(pickled, buffer_of(room))
    twins = PICKLING.loads(buffer_of(room))
    for name, is_view in {"a": True, "b": False, "c": True, "d": True}.items():
        assert_same_array(twins[name], value[name])
        assert np.shares_memory(twins[name], room) == is_view
        assert not is_view or twins[name].ctypes.data % 64 == 0


def test_views_keep_the_payload_alive_and_nothing_else_does():
    base = np.zeros(100_000, "u1")
    value = [1, np.arange(1000)]
    pickled = PICKLING.dumps(value)
    pack_into(pickled, buffer_of(base)[: pickled.nbytes])
    died: list[int] = []
    weakref.finalize(base, died.append, 1)
    twin = PICKLING.loads(buffer_of(base))
    view = twin[1][10:]
    del base, twin
    gc.collect()
    assert not died
    np.testing.assert_array_equal(view, np.arange(10, 1000))
    del view
    gc.collect()
    assert died


@pytest.mark.parametrize(
    "value", [np.float64(1.5), np.int8(3), np.bool_(True), np.datetime64("2020-01-01"), np.str_("a")]
)
def test_numpy_scalars(through, value):
    for twin in (through(value), through((value,))[0], through([value])[0]):
        assert twin == value
        assert type(twin) is type(value)


def test_numpy_dtypes_and_functions(through):
    assert through(np.dtype("f8")) == np.dtype("f8")
    assert through(np.float32) is np.float32
    assert through(np.sum) is np.sum
    assert through(np.add) is np.add
    with_metadata = np.zeros(500, np.dtype("f8", metadata={"unit": "m"}))
    assert through(with_metadata).dtype.metadata == {"unit": "m"}


class Simple(np.ndarray):
    pass


class Careful(np.ndarray):
    def __reduce__(self):
        return careful, (np.asarray(self).tolist(),)


def careful(values):
    return np.array(values).view(Careful)


@pytest.mark.parametrize("size", [3, 1000])
def test_subclasses_of_arrays(through, size, tmp_path):
    plain = np.arange(size)
    twin = through(plain.view(Simple))
    assert_same_array(twin, plain.view(Simple))
    assert type(through(plain.view(Careful))) is Careful
    masked = through(np.ma.masked_less(plain, 2))
    assert masked.mask.sum() == 2
    records = np.zeros(size, [("a", "i4")]).view(np.recarray)
    assert through(records).a.sum() == 0
    mapped = np.memmap(tmp_path / "file", dtype="i8", mode="w+", shape=(size,))
    mapped[:] = plain
    assert_same_array(through(mapped), mapped)
    assert bool(PICKLING.dumps(mapped).buffers) == (size == 1000)
    matrix = np.eye(size)[:2].view(np.matrix)
    assert_same_array(through(matrix), matrix)


def test_classes_of_modules_that_are_loaded_late_go_by_name(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy.rec", raising=False)
    for value in (np.zeros(1000, [("a", "i4")]).view(np.recarray), np.recarray):
        stream = Pickling(Ref, int, Ref).dumps(value).stream
        assert b"__getitem__" not in bytes(stream), "The class was sent, and not its name."


def test_objects_in_arrays_may_be_refs_and_loops(through):
    value = np.empty(2, object)
    value[0] = Ref(4)
    value[1] = value
    assert PICKLING.dumps(value).contained == (4,)
    twin = through(value)
    assert twin[0] == Ref(4)
    assert twin[1] is twin


def test_pandas(through):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": range(1000), "b": ["x"] * 1000})
    assert through(frame).equals(frame)


# --- memoryviews ---


@pytest.mark.parametrize(
    "value",
    [
        memoryview(b"abc"),
        memoryview(bytearray(5000)),
        memoryview(array.array("d", range(1000))),
        memoryview(array.array("q", range(24))).cast("B").cast("q", (2, 3, 4)),
        memoryview(bytes(range(100)))[::3],
        memoryview(b""),
        buffer_of(np.arange(12).reshape(3, 4))[::2],
        buffer_of(np.zeros(3, [("a", "i4"), ("b", "f8")])),
        buffer_of(np.zeros((0, 3))),
    ],
    ids=range(9),
)
def test_memoryviews_come_back_read_only(through, value):
    twin = through([value])[0]
    assert isinstance(twin, memoryview)
    assert twin.readonly
    assert twin.tobytes() == value.tobytes()
    assert twin.itemsize == value.itemsize
    if value.nbytes:
        assert twin.shape == value.shape
        np.testing.assert_array_equal(np.asarray(twin), np.asarray(value))


# --- refs ---


def test_contained_refs_are_listed_once_in_order(through):
    shared = Ref(7)
    value = [Ref(9), {"a": shared, "b": (shared, Ref(2**64 - 1))}, Point(Ref(7), Ref(1))]
    pickled = PICKLING.dumps(value)
    assert pickled.contained == (9, 7, 2**64 - 1, 1)
    assert through(value) == value
    assert PICKLING.dumps(Ref(5)).contained == (5,)
    assert through(Ref(5)) == Ref(5)


def test_refs_are_found_in_closures_defaults_partials_and_globals_of_dynamic_functions():
    captured, default = Ref(1), Ref(2)

    def function(argument, other=default):
        return captured, other, argument

    assert PICKLING.dumps(functools.partial(function, Ref(3))).contained == (2, 1, 3)
    assert inline(functools.partial(function, Ref(3)))() == (Ref(1), Ref(2), Ref(3))
    module = types.ModuleType("made_here")
    exec("def function():\n    return ref", module.__dict__)
    vars(module)["ref"] = Ref(4)
    assert PICKLING.dumps(module.function).contained == (4,)
    assert inline(module.function)() == Ref(4)


def test_a_subclass_of_refs_counts_as_a_ref():
    class Special(Ref):
        pass

    assert PICKLING.dumps([Special(3)]).contained == (3,)
    assert PICKLING.dumps_call((Special(3),), {})[1] == (3,)


def test_each_rank_makes_its_own_refs_even_when_loads_are_nested():
    class Other:
        def __init__(self, object_id):
            self.object_id = object_id

    other = Pickling(Other, lambda ref: ref.object_id, Other)
    inner = pack_inline(other.dumps([Other(1)]))
    global NESTED
    NESTED = lambda: other.loads(inner)  # noqa: E731
    made = PICKLING.loads(pack_inline(PICKLING.dumps([Nested(), Ref(2)])))
    assert type(made[0].found[0]) is Other
    assert type(made[1]) is Ref


NESTED: Any = None


class Nested:
    def __setstate__(self, state):
        self.found = NESTED()

    def __getstate__(self):
        return 1


def test_refs_loaded_by_plain_pickle_say_so():
    with pytest.raises(HpcfutError, match="only inside hpcfut"):
        pickle.loads(PICKLING.dumps(Ref(1)).stream)


def test_threads_do_not_mix():
    payload = pack_inline(PICKLING.dumps([Ref(n) for n in range(100)]))
    found = []
    threads = [threading.Thread(target=lambda: found.append(PICKLING.loads(payload))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[Ref(n) for n in range(100)]] * 8


# --- calls ---


def call(*args, **kwargs):
    pickled, arguments = PICKLING.dumps_call(args, kwargs)
    values = [f"value of {object_id}" for object_id in arguments]
    twin_args, twin_kwargs = PICKLING.loads_call(pack_inline(pickled), values)
    assert type(twin_args) is tuple
    assert type(twin_kwargs) is dict
    return twin_args, twin_kwargs, arguments, pickled.contained


def test_empty_calls_are_a_constant():
    assert PICKLING.dumps_call((), {}) == (EMPTY_CALL, ())
    assert call() == ((), {}, (), ())


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, "two"), {}),
        ((), {"a": 1}),
        ((1,), {"a": 2, "b": [3]}),
        (([1], {"k": 2}, list(range(100)), dict.fromkeys(range(100)), [[1], {}]), {}),
        (([1, 2],), {}),
        ((Point(1, 2),), {"p": Point(3, 4)}),
        (([1], {}, {0: 0}), {}),
        (((1, 2), (3,)), {}),
    ],
)
def test_calls_come_back(args, kwargs):
    assert call(*args, **kwargs) == (args, kwargs, (), ())


def test_refs_at_the_top_of_a_call_are_replaced_and_deeper_ones_are_not():
    assert call(Ref(1)) == (("value of 1",), {}, (1,), ())
    assert call(0, Ref(1), a=Ref(2), b=5) == ((0, "value of 1"), {"a": "value of 2", "b": 5}, (1, 2), ())
    args, kwargs, arguments, nested = call([Ref(3)], Ref(4), x={"k": Ref(5)}, y=Ref(6), z=Ref(4))
    assert args == ([Ref(3)], "value of 4")
    assert kwargs == {"x": {"k": Ref(5)}, "y": "value of 6", "z": "value of 4"}
    assert list(kwargs) == ["x", "y", "z"]
    assert arguments == (4, 6)
    assert nested == (3, 5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_calls_of_nothing_but_refs_need_no_payload(n):
    refs = tuple(map(Ref, range(n)))
    assert PICKLING.dumps_call(refs, {}) == (EMPTY_CALL, tuple(range(n)))
    assert call(*refs) == (tuple(f"value of {i}" for i in range(n)), {}, tuple(range(n)), ())
    assert call(*refs, 7) == ((*(f"value of {i}" for i in range(n)), 7), {}, tuple(range(n)), ())
    assert call(*refs, refs[0]) == ((*(f"value of {i}" for i in range(n)), "value of 0"), {}, tuple(range(n)), ())


def test_the_same_ref_twice_is_one_argument():
    args, kwargs, arguments, _ = call(Ref(1), Ref(1), a=Ref(1))
    assert arguments == (1,)
    assert args[0] is args[1] is kwargs["a"]


def test_arrays_in_calls():
    value = np.arange(1000)
    for args, kwargs in (((value,), {}), ((value, 1, value), {}), ((value,), {"a": value}), ((value, Ref(1)), {})):
        pickled, _ = PICKLING.dumps_call(args, kwargs)
        assert len(pickled.buffers) == 1
        twin_args, twin_kwargs = PICKLING.loads_call(pack_inline(pickled), ["loaded"])
        assert_same_array(twin_args[0], value)
        if len(args) == 3:
            assert twin_args[0] is twin_args[2]
        if kwargs:
            assert twin_kwargs["a"] is twin_args[0]
    first, second = PICKLING.loads_call(pack_inline(PICKLING.dumps_call((value, value + 1), {})[0]), [])[0]
    assert_same_array(first, value)
    assert_same_array(second, value + 1)


@pytest.mark.parametrize(
    "value", [np.arange(1000), np.ones((3, 400), order="F"), {"array": np.arange(1000), "n": [1]}, [1, "two"], 7]
)
def test_a_loader_makes_a_value_of_its_own_each_time(value):
    payload = memoryview(pack_inline(PICKLING.dumps(value)))
    load = PICKLING.loader_of(payload)
    one, other = load(), load()
    assert one is not other or isinstance(value, int)
    if isinstance(value, np.ndarray):
        assert one.strides == value.strides
        one.shape = (*value.shape, 1)
        assert_same_array(other, value)
        assert np.shares_memory(one, other)
        with pytest.raises(ValueError, match="WRITEABLE"):
            one.setflags(write=True)
    elif isinstance(value, dict):
        one["n"].append(2)
        assert other["n"] == [1]
        assert_same_array(other["array"], value["array"])
    else:
        assert one == other == value


# --- what cannot be pickled or loaded ---


class Locked:
    def __init__(self):
        self.config = {"lock": threading.Lock()}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (threading.Lock(), "The value cannot"),
        ([1, 2, {"a": threading.Lock()}], r"The value\[2\]\['a'\] cannot"),
        ([Locked()], r"The value\[0\].config\['lock'\] cannot"),
        ((x for x in "abc"), r"builtins\.generator"),
        ({"s": {2: sys._getframe()}}, r"The value\['s'\]\[2\] cannot.*builtins.frame"),
    ],
    ids=range(5),
)
def test_the_part_that_cannot_be_pickled_is_named(value, name):
    with pytest.raises(UnpicklableError, match=name) as caught:
        PICKLING.dumps(value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, HpcfutError)
    assert str(caught.value).endswith(".")


def test_arguments_and_captured_variables_are_named():
    lock = threading.Lock()

    def function():
        return lock

    with pytest.raises(UnpicklableError, match="The variable 'lock' that the value uses"):
        PICKLING.dumps(function)
    with pytest.raises(UnpicklableError, match=r"Argument 1 cannot.*_thread\.lock"):
        PICKLING.dumps_call((1, lock), {})
    with pytest.raises(UnpicklableError, match=r"Argument 'a'\[0\] cannot"):
        PICKLING.dumps_call((1,), {"a": [lock]})


def test_looking_for_the_culprit_ends():
    loop: list[Any] = [threading.Lock()]
    loop.insert(0, loop)
    with pytest.raises(UnpicklableError, match=r"The value\[1\] cannot"):
        PICKLING.dumps(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnpicklableError, match="deep"):
        PICKLING.dumps(deep)
    while deep:
        deep = deep[0]
    with pytest.raises(UnpicklableError):
        PICKLING.dumps([*range(5000), threading.Lock()])


class Broken:
    def __reduce__(self):
        raise ValueError("not today")


def test_a_broken_reduce_is_quoted():
    with pytest.raises(UnpicklableError, match="not today"):
        PICKLING.dumps(Broken())


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"\x80", b"\x80\x05.", b"hfut", b"hfut" + b"\xff" * 12, b"hfut" + bytes(12), b"\x00" * 99]
)
def test_damaged_payloads_are_refused(payload):
    for data in (payload, memoryview(payload), bytearray(payload)):
        with pytest.raises(UnloadableError):
            PICKLING.loads(data)


def test_truncated_payloads_are_refused():
    for value in ([np.arange(1000), Ref(1)], np.arange(1000)):
        payload = pack_inline(PICKLING.dumps(value))
        for size in (10, 24, 26, 100, len(payload) - 1):
            with pytest.raises(UnloadableError):
                PICKLING.loads(payload[:size])


@pytest.mark.parametrize("n", [1, 257, 65_537])
def test_many_buffers_are_not_taken_for_one_array(n):
    # The second size begins where the stream of one array does, with the letter that such a stream begins with.
    value = [bytearray(65_536 + ord("a")) if number == 1 else memoryview(b"abc") for number in range(n)]
    twin = PICKLING.loads(pack_inline(PICKLING.dumps(value)))
    assert (len(twin), bytes(twin[0])) == (n, b"abc")


def test_damaged_payloads_of_arrays_are_refused():
    payload = pack_inline(PICKLING.dumps(np.arange(1000)))
    start = payload.index(b"alC")
    for damage in (b"aOC", b"a!C", b"alX", b"alC\xff\xff", b"alC" + bytes(7) + b"\x80"):
        with pytest.raises(UnloadableError):
            PICKLING.loads(payload[:start] + damage + payload[start + len(damage) :])
    assert PICKLING.loads(payload).tolist() == list(range(1000))


def test_damaged_payloads_have_no_loader_or_one_that_fails():
    sole, general = (pack_inline(PICKLING.dumps(value)) for value in (np.arange(1000), [np.arange(1000), Ref(1)]))
    for payload in (sole[:-1], sole[:40], sole.replace(b"alC", b"alX"), general[:-1], general[:20]):
        with pytest.raises(UnloadableError):
            PICKLING.loader_of(memoryview(payload))()


def test_what_is_not_installed_is_named(monkeypatch):
    module = types.ModuleType("not_installed_here")
    exec("def f(): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "not_installed_here", module)
    payload = pickle.dumps(vars(module)["f"])
    monkeypatch.delitem(sys.modules, "not_installed_here")
    with pytest.raises(UnloadableError, match="Install not_installed_here where every rank"):
        PICKLING.loads(payload)


def test_hpcfut_itself_is_never_sent_by_value(tmp_path):
    # It may have come from the working directory, which a script's own folder replaces in sys.path.
    pickling = Pickling(Ref, lambda ref: ref.object_id, Ref, path=[str(tmp_path)])
    payload = pack_inline(pickling.dumps([Ref(7), HpcfutError]))
    assert b"Loading" not in payload
    assert pickling.loads(payload)[1] is HpcfutError


# --- exceptions ---


def carried(error):
    twin = PICKLING.loads_exception(PICKLING.dumps_exception(error))
    assert isinstance(twin, BaseException)
    return twin


class NeedsTwo(Exception):
    def __init__(self, code, detail):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class KeywordOnly(Exception):
    def __init__(self, *, path):
        super().__init__(path)
        self.path = path


class Doubling(Exception):
    def __init__(self, text):
        super().__init__(f"seen: {text}")


class Explosive(Exception):
    def __reduce__(self):
        raise RuntimeError("boom")

    def __str__(self):
        raise RuntimeError("bang")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        KeyError(("a", 1)),
        OSError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        NeedsTwo(3, "x"),
        KeywordOnly(path="/p"),
        Doubling("once"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(4),
        ExceptionGroup("many", [ValueError("a"), KeyError(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back(error):
    error.add_note("a note")
    error.extra = [1]
    twin = carried(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__notes__ == ["a note"]
    assert {**vars(twin)}.keys() == {**vars(error)}.keys()
    assert repr(vars(twin)) == repr(vars(error))


def test_attributes_that_cannot_travel_become_texts():
    error = NeedsTwo(3, threading.Lock())
    vars(error)["lock"] = threading.Lock()
    twin = carried(error)
    assert isinstance(twin, NeedsTwo)
    assert twin.code == "3"
    assert "lock" in vars(twin)["lock"]
    assert str(twin) == "code 3"


def test_exceptions_that_cannot_travel_at_all_have_a_stand_in():
    twin = carried(Explosive("x"))
    assert type(twin) is Explosive  # rebuilt from its parts

    class Hopeless(Exception):
        def __new__(cls, *args):
            if args and args[0] == "first":
                return super().__new__(cls, *args)
            raise RuntimeError("no")

    error = Hopeless("first")
    error.args = ("later",)
    twin = carried(error)
    assert type(twin) is StandInError
    assert twin.type_name.endswith("Hopeless")
    assert str(twin).endswith("Hopeless: later")
    assert str(carried(twin)) == str(twin)


def test_exceptions_do_not_carry_refs():
    error = ValueError("holds", Ref(1))
    assert PICKLING.loads_exception(PICKLING.dumps_exception(error)) is not None


def test_causes_come_along():
    try:
        try:
            try:
                raise KeyError("root")
            except KeyError as error:
                raise NeedsTwo(1, 2) from error
        except NeedsTwo as error:
            raise ValueError("top") from error
    except ValueError as error:
        top = carried(error)
    assert type(top.__cause__) is NeedsTwo
    assert type(top.__cause__.__cause__) is KeyError
    assert top.__suppress_context__
    assert top.__cause__.__cause__.__cause__ is None
    assert not top.__cause__.__cause__.__suppress_context__


def test_causes_in_a_circle_end():
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    twin = carried(first)
    assert str(twin.__cause__) == "2"
    assert twin.__cause__.__cause__ is None


@pytest.mark.parametrize("payload", [b"", b"x", b"\x80\x05N.", b"\x95\xa1a\xa1b\xc4\x01x\xc2\xc0"])
def test_loading_an_exception_never_raises(payload):
    assert isinstance(PICKLING.loads_exception(payload), StandInError | None)


# --- functions and classes of scripts, between processes ---

WORKER = """
    import struct, sys
    from hpcfut.wire.pickling import Pickling, pack_inline

    class Ref:
        def __init__(self, object_id):
            self.object_id = object_id

    pickling = Pickling(Ref, lambda ref: ref.object_id, Ref)
    while head := sys.stdin.buffer.read(8):
        function, *args = pickling.loads(sys.stdin.buffer.read(struct.unpack("<Q", head)[0]))
        try:
            value = function(*args)
        except Exception as error:
            value = pickling.dumps_exception(error)
        payload = pack_inline(pickling.dumps(value))
        sys.stdout.buffer.write(struct.pack("<Q", len(payload)) + payload)
        sys.stdout.buffer.flush()
"""

SCRIPT = """
    import abc, enum, struct, subprocess, sys, types
    from dataclasses import dataclass
    from hpcfut.wire.pickling import Pickling, pack_inline

    class Ref:
        def __init__(self, object_id):
            self.object_id = object_id

    pickling = Pickling(Ref, lambda ref: ref.object_id, Ref)
    worker = subprocess.Popen([sys.executable, sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(function, *args, pickling=pickling):
        payload = pack_inline(pickling.dumps((function, *args)))
        worker.stdin.write(struct.pack("<Q", len(payload)) + payload)
        worker.stdin.flush()
        return pickling.loads(worker.stdout.read(struct.unpack("<Q", worker.stdout.read(8))[0]))

    seen = []

    class A:
        scale = 1
        def __init__(self, n):
            self.n = n
        def note(self):
            seen.append(self.n)
            return self.n * self.scale

    @dataclass
    class D:
        a: A
        b: int = 2

    class Base(abc.ABC):
        @abc.abstractmethod
        def f(self): ...

    class Impl(Base):
        def f(self):
            return __class__.__name__

    class Colour(enum.Enum):
        RED = 1

    class Mine(Exception):
        def __init__(self, code, *, why):
            super().__init__(code)
            self.why = why

    # A class keeps its identity through a round trip, and its methods their globals.
    original = A.note
    a = run(lambda n: A(n), 5)
    assert type(a) is A and A.note is original
    assert a.note() == 5 and seen == [5]
    assert isinstance(run(lambda x: x, a), A)
    d = run(lambda a: D(a), A(1))
    assert type(d) is D and type(d.a) is A and d == D(d.a)
    assert run(lambda: A) is A
    assert run(lambda c: (c, Colour.RED), Colour.RED) == (Colour.RED, Colour.RED)
    assert type(run(lambda: Impl())) is Impl and run(lambda: Impl().f()) == "Impl"

    # The same class sent twice is one class there.
    run(lambda a: sys.modules["builtins"].__dict__.__setitem__("kept", a), A(1))
    assert run(lambda a: type(a) is type(kept), A(2))

    # What is set on the class afterwards arrives there.
    A.scale = 10
    assert run(lambda a: a.note(), A(3)) == 30
    assert A.scale == 10 and seen == [5]

    # Functions that call each other.
    def is_even(n):
        return n == 0 or is_odd(n - 1)

    def is_odd(n):
        return n != 0 and is_even(n - 1)

    assert run(is_even, 10) is True and run(is_odd, 10) is False

    # Refs among globals are found, also through classes and other functions.
    shared = Ref(42)

    def use():
        return shared.object_id

    class User:
        def go(self):
            return use()

    assert pickling.dumps(use).contained == (42,)
    assert pickling.dumps(User()).contained == (42,)
    assert run(use) == 42 and run(lambda u: u.go(), User()) == 42

    # Exceptions of the script.
    def fail():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Mine(7, why="because") from error

    error = pickling.loads_exception(run(fail))
    assert type(error) is Mine and error.args == (7,) and error.why == "because"
    assert type(error.__cause__) is KeyError

    # Modules that only this process has go by value; installed and neighbouring ones by reference.
    made = types.ModuleType("made_by_hand")
    exec("CONSTANT = 3\\ndef f(): return CONSTANT\\nclass C:\\n    def g(self): return f()", made.__dict__)
    sys.modules["made_by_hand"] = made
    assert run(made.f) == 3 and run(lambda c: c.g(), made.C()) == 3
    assert type(run(lambda c: c, made.C())) is made.C
    import helper, json
    assert run(helper.where) == "helper" and run(lambda: helper.where()) == "helper"
    assert run(json.dumps, [1]) == "[1]"
    assert b"helper" in pickling.dumps(helper.where).stream and len(pickling.dumps(helper.where).stream) < 60
    sys.path.insert(0, sys.argv[2])
    narrow = Pickling(Ref, lambda ref: ref.object_id, Ref, path=sys.path[1:])
    import elsewhere
    assert len(narrow.dumps(helper.where).stream) < 60
    assert run(elsewhere.g, pickling=narrow) == 9

    worker.stdin.close()
    assert worker.wait() == 0
    print("all good")
"""


def test_a_script_and_another_process(tmp_path):
    files = {
        "rank0/script.py": SCRIPT,
        "rank0/helper.py": "def where():\n    return __name__\n",
        "rank1/worker.py": WORKER,
        "rank1/helper.py": "def where():\n    return __name__\n",
        "late/elsewhere.py": "def g():\n    return 9\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, tmp_path / "rank0/script.py", tmp_path / "rank1/worker.py", tmp_path / "late"],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "all good\n", done.stderr
