import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfut.model.errors import CodecError
from hpcfut.wire.codec import LOAD_MAX, WIRE_VERSION, OtherSessionError, decode_frame, encode_frame
from hpcfut.wire.messages import ObjectLocated, TaskDone
from tests.wire.made_up import ID_MAX, KINDS, strategy_of

messages = st.one_of(*map(strategy_of, KINDS))
frames = st.builds(encode_frame, st.integers(0, LOAD_MAX), st.lists(messages, max_size=4))


def wrapped(body: bytes) -> bytes:
    """A frame with a right header, whatever the body is."""
    return struct.pack("<2sBxIII", b"hf", WIRE_VERSION, 7, len(body), zlib.crc32(body[:4096], 7)) + body


def decodes_or_complains(data: bytes) -> None:
    try:
        load, decoded = decode_frame(data)
    except CodecError:
        return
    assert 0 <= load <= LOAD_MAX
    assert all(isinstance(message, KINDS) for message in decoded)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_round_trips(kind):
    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, LOAD_MAX), strategy_of(kind))
    def check(load, message):
        assert decode_frame(encode_frame(load, [message])) == (load, [message])

    check()


def test_tags_are_distinct():
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(messages, max_size=10))
def test_batches_keep_their_order(batch):
    assert decode_frame(encode_frame(0, batch)) == (0, batch)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_decoded_and_not_kept(kind):
    data = bytearray(encode_frame(1, [TaskDone(ID_MAX, b"payload")]))
    _, [message] = decode_frame(kind(data))
    data[:] = bytes(len(data))
    assert message == TaskDone(ID_MAX, b"payload")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=200))
def test_random_bytes(data):
    decodes_or_complains(data)
    decodes_or_complains(wrapped(data))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(frames, st.data())
def test_truncated_or_joined_frames_are_refused(frame, data):
    with pytest.raises(CodecError):
        decode_frame(frame[: data.draw(st.integers(0, len(frame) - 1))])
    with pytest.raises(CodecError):
        decode_frame(frame + data.draw(st.binary(min_size=1, max_size=5)))
    with pytest.raises(CodecError):
        decode_frame(frame + frame)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(frames, st.data())
def test_flipped_bits_are_found(frame, data):
    position = data.draw(st.integers(0, 8 * len(frame) - 1))
    damaged = bytearray(frame)
    damaged[position // 8] ^= 1 << position % 8
    with pytest.raises(OtherSessionError if position // 8 == 3 else CodecError):
        decode_frame(damaged)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(messages, min_size=1, max_size=2), st.data())
def test_damage_that_the_checksum_misses_never_ends_in_another_error(batch, data):
    body = bytearray(encode_frame(0, batch)[16:])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_complains(wrapped(bytes(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 200_000,
        b"\x91\x9a\x08\x01\xc4\x00" + b"\x91" * 200_000,
        b"\x91\x92\x08\x01",
        b"\x91\x93\x08\xd9\x02\xff\xff\xc4\x00",
        b"\x91\x93\x7f\x01\xc4\x00",
        b"\x91\x93\x08\xcf" + b"\xff" * 8 + b"\xa1x",
    ],
    ids=[
        "long-array", "long-bytes", "deep", "deep-extra", "short", "bad-text", "unknown-tag", "text-for-bytes"
    ],
)  # fmt: skip
def test_bodies_made_to_hurt(body):
    with pytest.raises(CodecError):
        decode_frame(wrapped(body))


def test_large_frames_are_checked_at_their_beginning():
    frame = bytearray(encode_frame(3, [TaskDone(1, random.Random(0).randbytes(100_000))]))
    frame[4000] ^= 1
    with pytest.raises(CodecError, match="checksum"):
        decode_frame(frame)


def test_sentences_say_what_is_wrong():
    frame = encode_frame(0, [])
    with pytest.raises(CodecError, match="wire version 99"):
        decode_frame(frame[:2] + b"\x63" + frame[3:])
    with pytest.raises(CodecError, match="not a frame of hpcfut"):
        decode_frame(b"xx" + frame[2:])
    with pytest.raises(CodecError, match="cut or joined"):
        decode_frame(frame + b"x")
    with pytest.raises(CodecError, match="could not be decoded"):
        decode_frame(b"")


@pytest.mark.parametrize(("rank", "nbytes"), [(-1, 0), (2**20, 0), (0, -1)])
def test_ranks_and_sizes_that_cannot_be_are_refused(rank, nbytes):
    with pytest.raises(CodecError, match="Expected `int`"):
        decode_frame(encode_frame(0, [ObjectLocated(1, rank, nbytes)]))
