"""Every tampering is detected, even if the checksums above are recomputed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coopt_fl.core.errors import VerificationError
from coopt_fl.optimized.verify import verify
from tests.unit.optimized.make import DIM, SKIPPED, edit
from tests.unit.optimized.tamper import PART, column, mend, problems, rewrite


def test_untouched_dataset_is_right(finished: Path) -> None:
    provenance, found = verify(finished / "dataset")
    assert found == []
    assert provenance.rows == 48


def test_missing_and_extra_files(dataset: Path) -> None:
    (dataset / PART).rename(dataset / "data/part-00007.parquet")
    found = problems(dataset)
    extra, missing = found.splitlines()  # and nothing of the ids that are missing with it
    assert "part-00001.parquet is missing" in missing
    assert "part-00007.parquet is not in the provenance; remove it" in extra


def test_swapped_rows_and_swapped_targets(dataset: Path) -> None:
    order = [1, 0, *range(2, 8)]
    rewrite(dataset, lambda t: t.take(order[: len(t)]))
    assert problems(dataset).endswith(
        "block 4 has another digest than its provenance says, and does not have its ids in "
        "ascending order"
    )


def test_swapped_targets(dataset: Path) -> None:
    rewrite(dataset, lambda t: column(t, "target", lambda v: [v[1], v[0], *v[2:]]))
    assert problems(dataset).endswith("block 4 has another digest than its provenance says")
    mend(dataset, total=False)
    assert problems(dataset) == "the dataset digest is not that of the block digests"


@pytest.mark.parametrize("which", ["digest", "block"])
def test_edited_digest(which: str, dataset: Path) -> None:
    def change(p: dict[str, Any]) -> None:
        if which == "digest":
            p["digest"] = "0" * 64
        else:
            p["block_digests"][0] = "0" * 64

    edit(dataset, change)
    (only,) = problems(dataset).splitlines()
    expected = {
        "digest": "the dataset digest is not that of the block digests",
        "block": "block 0 has another digest than its provenance says",
    }
    assert only.endswith(expected[which])


def test_repeated_id(dataset: Path) -> None:
    taken = pq.read_table(dataset / "data/part-00000.parquet")["id"][0].as_py()
    rewrite(dataset, lambda t: column(t, "id", lambda v: sorted([taken, *v[1:]])))
    mend(dataset)
    assert problems(dataset) == ("1 row repeats an id; 49 of the source's 50 ids are accounted for")


@pytest.mark.parametrize(("foreign", "place"), [(50, -1), (10**6, -1), (-1, 0)])
def test_id_that_the_source_does_not_have(foreign: int, place: int, dataset: Path) -> None:
    def replace(ids: list[int]) -> list[int]:
        ids[place] = foreign
        return ids

    rewrite(dataset, lambda t: column(t, "id", replace))
    mend(dataset)
    assert problems(dataset) == (
        f"id {foreign} is not of the source, whose ids are 0 to 49; "
        "49 of the source's 50 ids are accounted for"
    )


def test_skipped_ids_that_are_hidden_there_or_foreign(dataset: Path) -> None:
    edit(dataset, lambda p: p.update(skipped=[SKIPPED[0]]))
    assert problems(dataset) == "49 of the source's 50 ids are accounted for"
    edit(dataset, lambda p: p.update(skipped=[*SKIPPED, 3]))
    assert problems(dataset) == "1 id is both there and skipped"
    edit(dataset, lambda p: p.update(skipped=[SKIPPED[0], 77]))
    assert "id 77 is not of the source" in problems(dataset)


@pytest.mark.parametrize("who", [2, 30_000, -2])
def test_contributor_that_is_not_listed(who: int, dataset: Path) -> None:
    rewrite(dataset, lambda t: column(t, "participant", lambda v: [who, *v[1:]]))
    mend(dataset)
    assert problems(dataset).endswith("block 4 names a contributor that is not listed")


def test_merged_rows_have_contributor_minus_one(dataset: Path) -> None:
    rewrite(dataset, lambda t: column(t, "participant", lambda v: [-1] * len(v)))
    mend(dataset)
    assert problems(dataset) == ""


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_targets_that_are_not_finite(number: float, dataset: Path) -> None:
    rewrite(dataset, lambda t: column(t, "target", lambda v: [[number] * DIM, *v[1:]]))
    mend(dataset)
    assert problems(dataset).endswith("block 4 holds targets that are not finite")


def test_row_counts_that_do_not_fit(dataset: Path) -> None:
    edit(dataset, lambda p: p.update(rows=7))
    assert problems(dataset) == "there are 48 rows, the provenance says 7"
    edit(dataset, lambda p: p["files"][1].update(rows=7))
    assert "rows, its provenance says 7" in problems(dataset)
    edit(dataset, lambda p: p["block_rows"].__setitem__(4, 7))
    assert "block 4 has 8 rows, its provenance says 7" in problems(dataset)


def test_dropped_row_group(dataset: Path) -> None:
    rewrite(dataset, lambda t: t.slice(0, 0))
    (only,) = problems(dataset).splitlines()
    assert only.endswith("and has 0 rows, its provenance says 8")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), DIM), pa.list_(pa.float16())])
def test_other_columns(kind: pa.DataType, dataset: Path) -> None:
    """The rows have the same values, in a type that other readers do not expect."""

    def change(table: pa.Table) -> pa.Table:
        values = pa.array(table["target"].to_pylist(), kind)
        return table.set_column(1, pa.field("target", kind, nullable=False), values)

    rewrite(dataset, change)
    assert "part-00001.parquet has columns id int64, target" in problems(dataset)


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="holds no finished optimized dataset"):
        verify(tmp_path)
