"""Messages survive encoding and decoding, and anything else is refused."""

import contextlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.config.load import from_tree
from coopt_fl.core.errors import DataError, ParticipantError
from coopt_fl.core.files import ONE_AT_A_TIME
from coopt_fl.federation.protocol import (
    Aligned,
    Describe,
    Description,
    Optimize,
    Payload,
    Receipt,
    Represent,
    Representation,
    decode,
    encode,
    encode_error,
    error_in,
    pack,
    task_of,
)

TASK = task_of(from_tree({"participants": [{"name": "a", "prior": "trivial:4"}]}, [], "a test"), "")

PAYLOAD = Payload(
    blocks=[3, 5],
    rows=[2, 1],
    ids=np.array([4, 9, 2]),
    targets=np.arange(6, dtype=np.float16).reshape(3, 2),
    skipped=np.array([7]),
    digests=["a" * 64, "b" * 64],
    seconds=0.5,
)
EXAMPLES: list[Any] = [
    Optimize(
        TASK,
        contributor=1,
        blocks=[3],
        sizes=[2],
        ids=np.array([4, 9]),
        weight=np.eye(3, dtype=np.float32),
        bias=np.zeros(3, np.float32),
        upload="",
        folder="",
    ),
    Aligned(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), "ridge"),
    Description("a", "trivial:4", 4, "0" * 64, "f", 9, "", "cpu", {"torch": "2"}, 1.0, 0),
    PAYLOAD,
    Receipt(9, "0" * 64),
    Representation(np.arange(2), np.ones((2, 3), np.float32), np.arange(0)),
]
"""Messages that test_typed reads back and fuzzes."""


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


def test_another_message_is_malformed() -> None:
    with pytest.raises(ParticipantError, match="malformed Payload"):
        decode(Payload, encode(Represent(TASK, np.arange(3))))


def records_of(told: dict[str, Any]) -> RecordDict:
    """Return arbitrary records, with arrays and any JSON value."""
    sent = {name: Array(one) for name, one in told.items() if isinstance(one, np.ndarray)}
    plain = {name: one for name, one in told.items() if name not in sent}
    return RecordDict(
        {
            "plain": ConfigRecord({"json": json.dumps(plain)}),
            "arrays": ArrayRecord(sent),
        }
    )


@given(st.dictionaries(st.sampled_from(["plain", "arrays", "x"]), st.text(max_size=9)))
def test_records_of_any_name_and_text_are_a_typed_error(told: dict[str, str]) -> None:
    records = RecordDict({name: ConfigRecord({"json": text}) for name, text in told.items()})
    with pytest.raises(ParticipantError, match="malformed Payload"):
        decode(Payload, records)


def test_damaged_array_bytes_are_a_typed_error() -> None:
    records = encode(Represent(TASK, np.arange(3)))
    damaged = Array("int64", (3,), "numpy.ndarray", b"\x93NUMPY\x01\x00v")
    records.array_records["arrays"]["ids"] = damaged
    with pytest.raises(ParticipantError):
        decode(Represent, records)


def test_bytes_that_break_their_reader_are_a_malformed_message() -> None:
    """The first bytes of an archive make numpy try to open one."""
    arrays = {"weight": Array(np.zeros((3, 2), np.float32))}
    arrays["bias"] = Array("float32", (2,), "numpy.ndarray", b"PK\x03\x04junk")
    plain = ConfigRecord({"json": json.dumps({"solver": "ridge"})})
    records = RecordDict({"arrays": ArrayRecord(arrays), "plain": plain})
    with pytest.raises(ParticipantError, match="malformed"):
        decode(Aligned, records)


def test_a_payload_survives_a_file() -> None:
    back = decode(Payload, pack(PAYLOAD))
    assert (back.blocks, back.rows, back.digests) == ([3, 5], [2, 1], PAYLOAD.digests)
    assert np.array_equal(back.targets, PAYLOAD.targets)
    assert np.array_equal(back.skipped, [7])


@given(st.data())
def test_a_damaged_file_is_a_payload_or_a_typed_error(data: st.DataObject) -> None:
    """Any bytes are changed, any part is cut off, or the file is replaced."""
    whole = bytearray(pack(PAYLOAD))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:end]), data.draw(st.binary(max_size=300))):
        with contextlib.suppress(ParticipantError):
            assert isinstance(decode(Payload, damaged), Payload)


@pytest.mark.parametrize("form", [encode, pack])
def test_messages_wait_while_another_thread_reads_arrays(form: Callable[[Any], Any]) -> None:
    """Or else a sound message may seem malformed, before Python 3.11.8."""
    with ThreadPoolExecutor(1) as thread:
        with ONE_AT_A_TIME:
            coming = thread.submit(decode, Payload, form(PAYLOAD))
            with pytest.raises(TimeoutError):
                coming.result(0.2)
        assert coming.result(10).blocks == PAYLOAD.blocks


def test_a_pickle_in_a_file_is_not_opened() -> None:
    file = io.BytesIO()
    np.savez(file, plain=np.array(b"{}"), ids=np.array([print], dtype=object))
    with pytest.raises(ParticipantError, match="malformed Payload"):
        decode(Payload, file.getvalue())


def test_a_compressed_file_is_not_inflated() -> None:
    """A small compressed file could contain gigabytes."""
    file = io.BytesIO()
    np.savez_compressed(file, plain=np.array(b"{}"), ids=np.zeros(100_000, np.int64))
    with pytest.raises(ParticipantError, match="compressed"):
        decode(Payload, file.getvalue())
