"""Damaged bytes of a published file are detected by its checksum or by block digests."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.optimized.make import edit, sha256
from tests.unit.optimized.tamper import PART, problems


def test_any_flipped_byte(dataset: Path) -> None:
    path = dataset / PART
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 25).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (only,) = problems(dataset).splitlines()
        assert "part-00001.parquet has changed" in only


@pytest.mark.parametrize("at", [*np.linspace(0, 0.97, 30).tolist(), 0.999])
def test_flipped_byte_under_a_mended_sum_is_named_or_harmless(at: float, dataset: Path) -> None:
    """No exception of Arrow escapes, and any byte that changes a value is detected."""
    path = dataset / PART
    before, whole = pq.read_table(path), bytearray(path.read_bytes())
    whole[int(at * len(whole))] ^= 1
    path.write_bytes(whole)
    edit(dataset, lambda p: p["files"][1].update(sha256=sha256(path)))
    found = problems(dataset)
    if not found:
        assert pq.read_table(path).equals(before)
    if at == 0.999:  # the magic at the end, which every reader checks
        assert "part-00001.parquet is not readable" in found


def test_name_of_a_column_that_is_no_utf8(dataset: Path) -> None:
    path = dataset / PART
    path.write_bytes(path.read_bytes().replace(b"participant", b"par\xf4icipant"))
    edit(dataset, lambda p: p["files"][1].update(sha256=sha256(path)))
    assert "part-00001.parquet is not readable" in problems(dataset)
