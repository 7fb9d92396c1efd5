"""The digests, recomputed from their definition."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coopt_fl.optimized.block import block_digest, dataset_digest


def defined(ids: list[int], targets: list[list[float]], participants: list[int]) -> str:
    """sha256 over the rows by ascending id of (int64 LE, n times float16 LE, int16 LE)."""
    total = hashlib.sha256()
    for id, row, who in sorted(zip(ids, targets, participants, strict=True)):
        total.update(struct.pack("<q", id))
        for number in row:
            total.update(struct.pack("<e", number))
        total.update(struct.pack("<h", who))
    return total.hexdigest()


@settings(max_examples=50)
@given(st.data(), st.integers(0, 9), st.integers(1, 5))
def test_block_digest_is_as_defined(data: st.DataObject, rows: int, dim: int) -> None:
    ids = sorted(data.draw(st.sets(st.integers(0, 2**62), min_size=rows, max_size=rows)))
    floats = st.floats(width=16, allow_nan=False, allow_infinity=False)
    targets = data.draw(arrays.arrays(np.float16, (rows, dim), elements=floats))
    who = data.draw(st.lists(st.integers(-1, 2**15 - 1), min_size=rows, max_size=rows))
    digest = block_digest(np.array(ids, np.int64), targets, np.array(who, np.int16))
    assert digest == defined(ids, targets.tolist(), who)
    assert digest == block_digest(
        np.array(ids, ">i8"), np.asfortranarray(targets).astype(">f2"), np.array(who, ">i2")
    )


def test_digest_of_known_bytes() -> None:
    """One row by hand: id 1, targets 1.0 and -2.0 (0x3C00, 0xC000), participant -1."""
    by_hand = bytes.fromhex("0100000000000000003c00c0ffff")
    ours = block_digest(
        np.array([1]), np.array([[1.0, -2.0]], np.float16), np.array([-1], np.int16)
    )
    assert ours == hashlib.sha256(by_hand).hexdigest()


@pytest.mark.parametrize("change", ["id", "target", "participant"])
def test_every_column_counts(change: str) -> None:
    columns = {
        "id": np.array([1, 2]),
        "target": np.zeros((2, 3), np.float16),
        "participant": np.zeros(2, np.int16),
    }
    before = block_digest(*columns.values())
    columns[change][1] += 1
    assert block_digest(*columns.values()) != before


def test_dataset_digest_is_of_the_block_digests_in_order() -> None:
    parts = [hashlib.sha256(bytes([k])).digest() for k in range(3)]
    expected = hashlib.sha256(b"".join(parts)).hexdigest()
    assert dataset_digest(part.hex() for part in parts) == expected
    assert dataset_digest(part.hex() for part in reversed(parts)) != expected
