"""Messages survive the wire, and nothing else passes for one."""

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.config import from_tree
from coopt_fl.errors import CooptError, DataError, ParticipantError
from coopt_fl.protocol import (
    Aligned,
    Describe,
    Optimize,
    Payload,
    Represent,
    decode,
    encode,
    encode_error,
    error_in,
    pack,
    task_of,
    unpack,
)

TASK = task_of(from_tree({"participants": [{"name": "a", "prior": "trivial:4"}]}, [], "a test"), "")


def test_round_trip() -> None:
    request = Optimize(
        TASK,
        contributor=1,
        blocks=[3],
        sizes=[2],
        ids=np.array([4, 9]),
        weight=np.eye(3, dtype=np.float32),
        bias=np.zeros(3, np.float32),
        upload="",
    )
    back = decode(Optimize, encode(request))
    assert back.task == TASK
    assert (back.blocks, back.sizes, back.contributor) == ([3], [2], 1)
    assert back.weight.dtype == np.float32
    assert np.array_equal(back.ids, request.ids)


def test_an_error_travels_as_itself() -> None:
    error = error_in(encode_error(DataError("no images here")))
    assert isinstance(error, DataError)
    assert str(error) == "no images here"
    assert error_in(encode(Describe(TASK, False))) is None


def test_an_unknown_error_is_a_participants() -> None:
    records = RecordDict({"error": ConfigRecord({"kind": "os.system", "message": "x" * 10_000})})
    error = error_in(records)
    assert isinstance(error, ParticipantError)
    assert len(str(error)) == 2000


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16])
def test_arrays_must_have_the_very_dtype(dtype: type) -> None:
    with pytest.raises(ParticipantError, match="ids is"):
        decode(Represent, encode(Represent(TASK, np.zeros(3, dtype))))


def test_another_message_is_malformed() -> None:
    with pytest.raises(ParticipantError, match="malformed Payload"):
        decode(Payload, encode(Represent(TASK, np.arange(3))))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
names = st.sampled_from(["weight", "bias", "r2_heldout", "solver", "seconds", "task", "x"])


@given(
    st.dictionaries(names, values, max_size=6) | values,
    st.dictionaries(names, st.sampled_from([np.zeros(2, np.float32), np.zeros(1)]), max_size=3),
)
def test_whatever_comes_is_a_message_or_a_typed_error(
    plain: Any, arrays: dict[str, np.ndarray]
) -> None:
    records = RecordDict(
        {
            "plain": ConfigRecord({"json": json.dumps(plain)}),
            "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        }
    )
    with contextlib.suppress(CooptError):
        assert isinstance(decode(Aligned, records), Aligned)


def test_damaged_array_bytes_are_a_typed_error() -> None:
    records = encode(Represent(TASK, np.arange(3)))
    damaged = Array("int64", (3,), "numpy.ndarray", b"\x93NUMPY\x01\x00v")
    records.array_records["arrays"]["ids"] = damaged
    with pytest.raises(ParticipantError):
        decode(Represent, records)


def test_bytes_that_break_their_reader_are_a_malformed_message() -> None:
    """An archive's first bytes make numpy try to open an archive."""
    arrays = {"weight": Array(np.zeros((3, 2), np.float32))}
    arrays["bias"] = Array("float32", (2,), "numpy.ndarray", b"PK\x03\x04junk")
    plain = ConfigRecord({"json": json.dumps({"r2_heldout": 0.5, "solver": "ridge"})})
    records = RecordDict({"arrays": ArrayRecord(arrays), "plain": plain})
    with pytest.raises(ParticipantError, match="malformed"):
        decode(Aligned, records)


PAYLOAD = Payload(
    blocks=[3, 5],
    rows=[2, 1],
    ids=np.array([4, 9, 2]),
    targets=np.arange(6, dtype=np.float16).reshape(3, 2),
    skipped=np.array([7]),
    digests=["a" * 64, "b" * 64],
    seconds=0.5,
)


def test_a_payload_survives_a_file() -> None:
    back = unpack(pack(PAYLOAD))
    assert (back.blocks, back.rows, back.digests) == ([3, 5], [2, 1], PAYLOAD.digests)
    assert np.array_equal(back.targets, PAYLOAD.targets)
    assert np.array_equal(back.skipped, [7])


@given(st.data())
def test_a_damaged_file_is_a_payload_or_a_typed_error(data: st.DataObject) -> None:
    """Any bytes changed, any part cut off, anything else instead."""
    whole = bytearray(pack(PAYLOAD))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:end]), data.draw(st.binary(max_size=300))):
        with contextlib.suppress(ParticipantError):
            assert isinstance(unpack(damaged), Payload)


def test_a_pickle_in_a_file_is_not_opened() -> None:
    file = io.BytesIO()
    np.savez(file, plain=np.array(b"{}"), ids=np.array([print], dtype=object))
    with pytest.raises(ParticipantError, match="malformed payload"):
        unpack(file.getvalue())


def test_a_compressed_file_is_not_inflated() -> None:
    """A small file may hold gigabytes."""
    file = io.BytesIO()
    np.savez_compressed(file, plain=np.array(b"{}"), ids=np.zeros(100_000, np.int64))
    with pytest.raises(ParticipantError, match="compressed"):
        unpack(file.getvalue())
