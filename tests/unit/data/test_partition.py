"""Partitions by class or by column, compared with scipy's distributions."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given as given_examples
from hypothesis import strategies as st
from scipy import stats

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core.errors import ConfigError, CooptError, DataError, OutputError
from coopt_fl.data import from_arrays, open_source
from coopt_fl.data.partition import drawn, explained, given, partition
from coopt_fl.federation.groups import Groups
from coopt_fl.federation.plan import Plan, Size, read_plan, require_parts, save_plan
from coopt_fl.federation.state import RunState
from coopt_fl.policies.assignment import BY_WEIGHT, Member
from tests.unit.data.make import encode, parquet, pixels, tree

NAMES = ["alpha", "beta", "gamma"]
EQUAL = np.ones(3)


def config(how: str, **changes: Any) -> Config:
    trees: dict[str, Any] = {
        "data": {"source": "synthetic", "limit": 1000},
        "participants": [{"name": name, "prior": "trivial:8"} for name in NAMES],
        "shared": {"size": 8},
        "assignment": {"partition": how},
    }
    return from_tree(trees, [f"{key}={value}" for key, value in changes.items()], "a test")


def parts_of(chosen: Config) -> dict[str, np.ndarray]:
    parts = partition(chosen, open_source(chosen.data))
    assert parts is not None
    return parts


def counts(owners: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the numbers of samples (C, K) of each class and participant."""
    table = np.zeros((classes.max() + 1, owners.max() + 1), int)
    np.add.at(table, (classes, owners), 1)
    return table


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
@pytest.mark.parametrize("alpha", [0.05, 1.0, 50.0])
def test_shares_of_a_class_follow_a_dirichlet_distribution(
    alpha: float, weights: list[float]
) -> None:
    """Mean and variance over 4,000 classes are those of scipy's distribution."""
    each, total = 200, 4000
    concentration = alpha * np.array(weights) / np.mean(weights)
    owners = drawn(np.arange(total).repeat(each), alpha, np.array(weights), seed=0)
    shares = np.stack([(owners.reshape(total, each) == k).mean(axis=1) for k in range(3)], axis=1)
    wanted = stats.dirichlet(concentration)
    error = np.sqrt(wanted.var() / total)
    assert (np.abs(shares.mean(axis=0) - wanted.mean()) < 5 * error + 0.5 / each).all()
    assert shares.var(axis=0) == pytest.approx(wanted.var(), rel=0.12, abs=2 / each**2)


def test_a_small_alpha_is_skewed_and_a_large_one_is_not() -> None:
    classes = np.random.default_rng(1).integers(0, 10, 5000)
    p_values = {
        alpha: stats.chi2_contingency(counts(drawn(classes, alpha, EQUAL, 2), classes)).pvalue
        for alpha in (0.1, 1e5)
    }
    assert p_values[0.1] < 1e-100
    assert p_values[1e5] > 0.99


def test_which_of_a_class_one_gets_is_chance() -> None:
    """Samples of a class are shuffled; otherwise the first participant would get the first rows."""
    owners = drawn(np.zeros(3000, np.int64), 1e6, EQUAL, 0)
    means = [np.flatnonzero(owners == place).mean() for place in range(3)]
    assert np.abs(np.array(means) - 1499.5).max() < 5 * 3000 / np.sqrt(12 * 1000)


@pytest.mark.parametrize("how", ["dirichlet:0.05", "dirichlet:1", "column:label"])
def test_every_id_once_by_seed_alone(how: str) -> None:
    first = parts_of(config(how))
    assert list(first) == NAMES
    assert np.array_equal(np.sort(np.concatenate([*first.values()])), np.arange(1000))
    assert all((np.diff(ids) > 0).all() for ids in first.values())
    again, other = parts_of(config(how)), parts_of(config(how, seed=1))
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)
    assert all(np.array_equal(first[name], other[name]) for name in NAMES) == (how[0] == "c")


def test_images_without_a_label_are_a_class_of_their_own(tmp_path: Path) -> None:
    images = [encode(pixels(k)) for k in range(300)]
    label = [None if k % 3 else k % 2 for k in range(300)]
    parquet(tmp_path / "train.parquet", images, label=pa.array(label, pa.int64()))
    where = {"data.source": "parquet", "data.root": tmp_path, "data.limit": 300}
    parts = parts_of(config("dirichlet:1e6", **where))
    assert [sum(label[id] is None for id in ids) for ids in parts.values()] == [67, 66, 67]


def test_iid_leaves_all_to_the_assignment() -> None:
    chosen = config("iid")
    assert partition(chosen, open_source(chosen.data)) is None


def test_the_plan_gives_each_its_own_and_asks_nobody_else() -> None:
    """A block or unit has one participant's samples; the shared set and the ids stay the same."""
    chosen = config("dirichlet:0.3")
    parts, size, ids = parts_of(chosen), Size(50, 0.1, 64), np.arange(1000)
    members = [Member(name) for name in NAMES]
    plan = Plan.make(ids, size, 0, members, BY_WEIGHT, Groups(parts, owned=True))
    for name, own in parts.items():
        blocks = [plan.blocks[index] for index in plan.blocks_of(name)]
        assert np.array_equal(np.sort(np.concatenate(blocks)), own)
        assert all(len(block) == 50 for block in blocks[:-1])
        units = [plan.units[index] for index in plan.blocks_of(name)]
        assert np.isin(np.concatenate(units), own).all()
        assert [len(unit) for unit in units[:-1]] == [55] * (len(units) - 1)
    free = Plan.make(ids, size, 0, members, BY_WEIGHT)
    assert np.array_equal(plan.shared, free.shared)
    whole = Plan.make(ids, size, 0, members[:1], BY_WEIGHT, Groups({"alpha": ids}, owned=True))
    assert all(map(np.array_equal, whole.units, free.units))


def test_a_run_is_not_continued_with_another_partition(tmp_path: Path) -> None:
    """A changed column, for instance, is not detected by the fingerprint of the images."""
    chosen, state = config("dirichlet:0.3"), RunState(tmp_path)
    parts, ids = parts_of(chosen), np.arange(1000)
    groups = Groups(parts, owned=True)
    require_parts(state, chosen, ids, groups)  # there is no plan yet
    members = [Member(name) for name in NAMES]
    save_plan(state, Plan.make(ids, Size.of(chosen), 0, members[::-1], BY_WEIGHT, groups))
    require_parts(state, chosen, ids, groups)
    moved = parts | {
        "alpha": parts["alpha"][1:],
        "beta": np.sort([*parts["beta"], parts["alpha"][0]]),
    }
    swapped = dict(zip(NAMES, (parts["beta"], parts["alpha"], parts["gamma"]), strict=True))
    for other in (moved, swapped):
        with pytest.raises(OutputError, match=r"gave other samples .* have changed; give another"):
            require_parts(state, chosen, ids, Groups(other, owned=True))


def test_a_plan_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    state, members = RunState(tmp_path), [Member(name) for name in NAMES]
    plan = Plan.make(np.arange(100), Size(20, 0.1, 8), 0, members, BY_WEIGHT)
    save_plan(state, plan)
    file = state.folder / "plan.json"
    stored = json.loads(file.read_text())
    del stored["regions"]
    file.write_text(json.dumps(stored))
    found = read_plan(state)
    assert found is not None and found.owners == plan.owners and found.regions == []


def test_values_that_are_names_say_whose_it_is() -> None:
    values = np.array(["beta", "alpha", "gamma", "beta"])
    assert given(values, NAMES, EQUAL, "x").tolist() == [1, 0, 2, 1]


@given_examples(st.lists(st.integers(1, 30), min_size=2, max_size=7))
def test_groups_stay_whole_and_shares_are_near_the_best(sizes: list[int]) -> None:
    """The largest share is within Graham's bound (1969) of the optimum by brute force."""
    values = np.repeat(np.arange(len(sizes)), sizes).astype(str)
    owners = given(values, ["a", "b"], np.ones(2), "x")
    of_group = [set(owners[values == str(group)].tolist()) for group in range(len(sizes))]
    assert all(len(one) == 1 for one in of_group)
    assert set(owners.tolist()) == {0, 1}
    ways = itertools.product([0, 1], repeat=len(sizes))
    best = min(max(sum(sizes) - (one := np.dot(way, sizes)), one) for way in ways)
    assert 6 * np.bincount(owners).max() <= 7 * best


def test_groups_follow_the_weights() -> None:
    values = np.repeat(np.arange(40), 5).astype(str)
    owners = given(values, ["a", "b"], np.array([3.0, 1.0]), "x")
    assert np.bincount(owners).tolist() == [150, 50]


COLUMNS = {
    "hospital": pa.array(["beta", "alpha", None, "gamma", "alpha"]),
    "number": pa.array([1, 10, 2, 1, 10], pa.int8()),
    "coded": pa.array(["x", "y", "x", "x", "y"]).dictionary_encode(),
    "day": pa.array([0, 1, 2, 3, 4], pa.date32()),
    "label": pa.array([0, 1, -1, 0, 1]),
}


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ("hospital", ["beta", "alpha", "", "gamma", "alpha"]),
        ("number", ["1", "10", "2", "1", "10"]),
        ("coded", ["x", "y", "x", "x", "y"]),
        ("day", [f"1970-01-0{day}" for day in range(1, 6)]),
        ("label", ["0", "1", "-1", "0", "1"]),
    ],
)
def test_a_column_of_parquet_files_is_text_row_by_row(
    column: str, wanted: list[str], tmp_path: Path
) -> None:
    images = [encode(pixels(k)) for k in range(5)]
    for number, rows in enumerate((slice(0, 3), slice(3, 5))):
        some = {name: values[rows] for name, values in COLUMNS.items()}
        parquet(tmp_path / f"train-{number}.parquet", images[rows], **some)
    for limit in (5, 4):
        source = open_source(DataConfig("parquet", str(tmp_path), limit))
        assert source.column(column).tolist() == wanted[:limit]
    assert source.column("nothing") is None
    with pytest.raises(DataError, match=r"image of .*train-0\.parquet holds binary; choose"):
        source.column("image")
    parquet(tmp_path / "train-2.parquet", images[:1], more=[1])
    source = open_source(DataConfig("parquet", str(tmp_path)))
    with pytest.raises(DataError, match=r"train-0\.parquet has no column more, which others have"):
        source.column("more")


def test_a_folder_says_whose_its_images_are(tmp_path: Path) -> None:
    """Each participant's images are in a folder with its name, at any depth."""
    names = [f"train/{NAMES[k % 3]}/{'deep/' * (k % 2)}{k}.png" for k in range(30)]
    tree(tmp_path, names)
    chosen = config("column:label", **{"data.source": "imagefolder", "data.root": tmp_path})
    source = open_source(chosen.data)
    parts = partition(chosen, source)
    for name, ids in parts.items():
        assert len(ids) == 10
        assert all(source.where(id).startswith(f"{name}/") for id in ids.tolist())
    tree(tmp_path, ["train/nobodys.png"])
    with pytest.raises(ConfigError, match="no participant is called ''"):
        partition(chosen, open_source(chosen.data))


def test_a_list_says_whose_its_images_are(tmp_path: Path) -> None:
    rows = [f"photos/{k}.png,{NAMES[k * k % 3]}" for k in range(12)]
    tree(tmp_path, [row.split(",")[0] for row in rows])
    (tmp_path / "list.csv").write_text("\n".join(["path,site", *rows]))
    two = from_tree(
        {
            "data": {"source": "manifest", "root": str(tmp_path / "list.csv")},
            "participants": [{"name": name, "prior": "trivial:8"} for name in NAMES[:2]],
            "shared": {"size": 8},
            "assignment": {"partition": "column:site"},
        },
        [],
        "a test",
    )
    found = {name: ids.tolist() for name, ids in parts_of(two).items()}
    assert found == {"alpha": [0, 3, 6, 9], "beta": [1, 2, 4, 5, 7, 8, 10, 11]}


def test_arrays_are_grouped_by_their_labels(tmp_path: Path) -> None:
    labels = np.arange(60) % 4
    from_arrays(np.zeros((60, 4, 4), np.uint8), labels).save(tmp_path)
    chosen = config("column:label", **{"data.source": "arrays", "data.root": tmp_path})
    parts = partition(chosen, open_source(chosen.data))
    assert sorted(tuple(np.unique(labels[ids])) for ids in parts.values()) == [(0, 3), (1,), (2,)]


def test_what_cannot_be_shared_out_is_one_sentence(tmp_path: Path) -> None:
    from_arrays(np.zeros((60, 4, 4), np.uint8)).save(tmp_path / "bare")
    from_arrays(np.zeros((60, 4, 4), np.uint8), np.arange(60) % 2).save(tmp_path / "two")
    images, whose = [encode(pixels(k)) for k in range(6)], [*NAMES[:2], "delta"] * 2
    parquet(tmp_path / "typo" / "train.parquet", images, whose=whose, us=NAMES * 2)
    bare, two, typo = (
        {"data.source": source, "data.root": tmp_path / folder}
        for source, folder in (("arrays", "bare"), ("arrays", "two"), ("parquet", "typo"))
    )
    cases: list[tuple[str, dict[str, Any], type[CooptError], str]] = [
        ("dirichlet:1", bare, DataError, "needs labels, and the train images have none"),
        ("column:label", bare, DataError, "needs labels, and the train images have none"),
        ("column:whose", bare, DataError, "data.source=arrays has no column 'whose'"),
        ("column:label", two, ConfigError, "3 participants cannot share 2 groups"),
        ("column:whose", typo, ConfigError,
         "no participant is called 'delta', and no sample has the value gamma"),
        ("column:us", typo | {"participants.0.weight": 2}, ConfigError, "weights have no meaning"),
    ]  # fmt: skip
    for how, where, kind, says in cases:
        chosen = config(how, **{"data.limit": 60} | where)
        with pytest.raises(kind, match=says) as caught:
            partition(chosen, open_source(chosen.data))
        assert len(str(caught.value).splitlines()) == 1


def test_who_gets_how_much_is_told() -> None:
    chosen = config("dirichlet:0.3")
    parts = parts_of(chosen)
    assert f"alpha {len(parts['alpha'])}, beta {len(parts['beta'])}" in explained(chosen, parts)
