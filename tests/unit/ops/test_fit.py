"""`coopt config --fit`: properties of the written configuration for any number of images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coopt_fl.cli import main as cli
from coopt_fl.config.load import load_config
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.data.blocks import advised, make_blocks, shared_set
from coopt_fl.ops.fit import fit
from coopt_fl.ops.sizes import FEW, Choice, Images, choose, doubts
from coopt_fl.policies.assignment import Member, Proportional
from coopt_fl.students.models import build_student
from tests.unit.data.make import encode, parquet, pixels, tree, write
from tests.unit.data.pack import PACKED, shard

PARQUET = load_config("parquet")
DATA = DataConfig("imagefolder", "images")
NUMBERS = st.integers(8, 3_000_000)


def chosen(
    count: int, *changes: str, edge: int = 200, gpu: bool = False, config: str = "parquet"
) -> tuple[dict[str, Choice], Config]:
    """Return the chosen settings, and the configuration made from them."""
    before = load_config(config, [*changes])
    asked = {change.partition("=")[0] for change in changes}
    made = choose(Images(DATA, count, 10, edge), before, asked, gpu=gpu)
    values = [f"{key}={json.dumps(one.value)}" for key, one in made.items() if "data" not in key]
    return made, load_config(config, [*changes, *values])


def owners(config: Config, count: int) -> set[str]:
    """Return the participants that get at least one block."""
    blocks = make_blocks(np.arange(count), config.optimize.block_rows, 0)
    members = [Member(one.name, one.weight) for one in config.participants]
    return set(Proportional()(range(len(blocks)), members))


@pytest.mark.whole
@given(NUMBERS, st.integers(1, 5000), st.booleans())
@example(8, 1, False)
@example(FEW - 1, 64, False)
@example(FEW, 65, True)
def test_the_method_works_with_any_number_of_images(count: int, edge: int, gpu: bool) -> None:
    made, config = chosen(count, edge=edge, gpu=gpu)
    size, dim = config.shared.size, config.targets.dim
    assert 2 * dim < size <= count, "a consensus, though one image cannot be read"
    assert size >= min(count, FEW)
    assert owners(config, min(count, 100_000)) == {"alpha", "beta", "gamma"}
    batch = config.student.batch_size
    assert 2 <= batch <= count
    assert config.student.epochs * (count // batch) >= 400
    assert all(one.reason for key, one in made.items() if key != "data.root")
    assert [*doubts(Images(DATA, count, 10, edge), config)] == [] or count < FEW


@pytest.mark.whole
@given(st.integers(8, 100_000))
def test_participants_of_equal_weight_get_about_as_many_images(count: int) -> None:
    config = chosen(count)[1]
    blocks = make_blocks(np.arange(count), config.optimize.block_rows, 0)
    members = [Member(one.name) for one in config.participants]
    rows = dict.fromkeys(["alpha", "beta", "gamma"], 0)
    for owner, block in zip(Proportional()(range(len(blocks)), members), blocks, strict=True):
        rows[owner] += len(block)
    assert min(rows.values()) >= 0.6 * count / 3


@given(st.integers(8, 5000), st.floats(0, 0.5))
def test_unreadable_images_do_not_cost_the_consensus(count: int, share: float) -> None:
    lost = int(share * min(count, 64))
    made = choose(Images(DATA, count, 10, 99, lost), PARQUET, set(), gpu=False)
    readable = made["shared.size"].value * (1 - lost / min(count, 64))
    assert 2 * made["targets.dim"].value <= readable
    assert made["shared.size"].value <= count
    assert ("data.on_error" in made) == bool(lost)


@pytest.mark.whole
@given(st.integers(8, 5000), st.lists(st.floats(0.2, 5), min_size=1, max_size=6))
def test_nobody_is_without_work_whatever_the_weights(count: int, weights: list[float]) -> None:
    people = [
        {"name": f"p{k}", "prior": "trivial:8", "weight": weight}
        for k, weight in enumerate(weights)
    ]
    _, config = chosen(count, f"participants={json.dumps(people)}")
    doubt = any("without work" in one for one in doubts(Images(DATA, count, 1), config))
    assert doubt or len(owners(config, count)) == len(weights)
    assert not doubt or count < sum(weights) / min(weights)


@pytest.mark.whole
@given(NUMBERS, st.integers(1, 5000))
def test_larger_images_never_get_a_smaller_prior_or_student(count: int, edge: int) -> None:
    one, other = chosen(count, edge=edge)[1], chosen(count, edge=edge + 1)[1]
    assert side(one) <= side(other)
    assert (one.student.image_size or 0) <= (other.student.image_size or 0) <= 96


def side(config: Config) -> int:
    (found,) = {int(one.prior.rpartition("=")[2]) for one in config.participants}
    return found


@pytest.mark.parametrize("edge", [8, 33, 64, 65, 200, 4000])
@pytest.mark.parametrize("count", [60, 100_000])
def test_the_student_can_be_built(edge: int, count: int) -> None:
    student = chosen(count, edge=edge)[1].student
    assert student.image_size is not None
    assert build_student(student.model, student.image_size, 0).width >= 256


def test_only_small_images_get_a_student_that_no_library_knows() -> None:
    models = {edge: chosen(100_000, edge=edge)[0]["student.model"] for edge in (32, 65)}
    assert models[32].value == "convnet:64" and "only be exported to ONNX" in models[32].reason
    assert models[65].value.startswith("timm:")
    assert chosen(400, edge=200)[1].student.model == "resnet18"
    assert chosen(100_000, edge=32, gpu=True)[1].student.model == "resnet18"


@pytest.mark.parametrize(
    ("change", "follows"),
    [
        ("targets.dim=40", lambda config: config.shared.size >= 80),
        ("shared.size=40", lambda config: 8 <= config.targets.dim <= 20),
        ("shared={size: 40}", lambda config: 8 <= config.targets.dim <= 20),
        ("student.batch_size=50", lambda config: config.student.epochs >= 50),
        ("student.model=convnet:8", lambda config: config.student.lr == 0.003),
        ("participants.1.prior=trivial:9", lambda config: "160" in config.participants[0].prior),
        ("optimize.block_rows=10", lambda config: config.optimize.batch_size <= 10),
        ("seed=7", lambda config: True),
    ],
)
def test_what_was_asked_for_stays_and_the_rest_follows(change: str, follows: Any) -> None:
    _, config = chosen(400, change)
    assert follows(config)
    key = change.partition("=")[0]
    assert value(config, key) == value(load_config("parquet", [change]), key)


def value(config: Config, key: str) -> Any:
    found: Any = asdict(config)
    for part in key.split("."):
        found = found[int(part) if part.isdigit() else part]
    return found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("targets.dim=64",), "needs 128 shared samples"),
        (("optimize.block_rows=100",), "without work"),
    ],
)
def test_what_cannot_work_is_said(changes: tuple[str, ...], says: str) -> None:
    config = chosen(60, *changes)[1]
    assert any(says in one for one in doubts(Images(DATA, 60, 10), config))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 30 small images with a test split, in the current directory."""
    monkeypatch.chdir(tmp_path)
    names = [f"train/{kind}/{k}.png" for kind in ("cat", "dog") for k in range(15)]
    tree(tmp_path / "my photos=1", [*names, "val/cat/0.png", "val/dog/0.png"])
    return tmp_path / "my photos=1"


def test_the_file_is_what_run_takes_and_says_why(photos: Path) -> None:
    found = fit(photos, None, "parquet", ["seed=3", "participants.2.prior=trivial:5"])
    assert (found["path"], found["next"]) == ("my-photos-1.yaml", "coopt run my-photos-1.yaml")
    assert found["images"] == {"count": 30, "tested": 2, "edge": 5, "unreadable": 0}
    config = load_config(found["path"])
    assert (config.seed, config.data.source, config.data.root) == (3, "imagefolder", str(photos))
    assert config.participants[2].prior == "trivial:5"
    assert config.shared.size == found["values"]["shared.size"]
    text = " ".join(Path(found["path"]).read_text().replace("# ", "").split())
    assert all(reason in text for reason in found["reasons"].values())


def test_parquet_files_and_a_missing_test_split(tmp_path: Path) -> None:
    images = [encode(pixels(k, 90, 70)) for k in range(40)]
    parquet(tmp_path / "x-train-0.parquet", images)
    found = fit(tmp_path, tmp_path / "out" / "x.yml", "digits", [])
    config = load_config(found["path"])
    assert (config.data.source, config.student.augment) == ("parquet", "crop")
    assert found["images"]["edge"] == 70
    assert len(found["warnings"]) == 1 and "No test split" in found["warnings"][0]


@pytest.mark.parametrize("kind", [*PACKED])
def test_all_that_a_source_takes_is_recognised(kind: str, tmp_path: Path) -> None:
    many = [encode(pixels(k)) for k in range(10)], ["a", "b"] * 5
    (tmp_path / "in").mkdir()
    data = PACKED[kind](tmp_path / "in", {"train": many, "test": many})
    where = Path(data.root)
    if kind == "remote":
        pytest.skip("a URL is no folder")
    if kind == "compressed":
        with pytest.raises(DataError, match=r"copy them first by `coopt publish-shards"):
            fit(where, tmp_path / "it.yaml", "parquet", [])
        return
    found = fit(where, tmp_path / "it.yaml", "parquet", [])
    config = load_config(found["path"])
    assert (config.data.source, config.data.root) == (data.source, data.root)
    assert found["images"] == {"count": 10, "tested": 10, "edge": 5, "unreadable": 0}


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", b"a,b\n1,2\n")
    for there in (tmp_path, tmp_path / "notes.csv"):
        with pytest.raises(DataError, match=r"holds no images|is not a folder"):
            fit(there, None, "parquet", [])


def test_what_img2dataset_writes_is_shards(tmp_path: Path) -> None:
    """img2dataset's shards have no split in their names, and a table of samples beside each."""
    many = [encode(pixels(k)) for k in range(10)], ["a", "b"] * 5
    write(tmp_path / "in/00000.tar", shard(many))
    parquet(tmp_path / "in/00000.parquet", ["key"] * 10)
    write(tmp_path / "in/00000_stats.json", b"{}")
    found = fit(tmp_path / "in", tmp_path / "it.yaml", "parquet", [])
    assert load_config(found["path"]).data.source == "webdataset"
    assert found["images"]["count"] == 10


def test_a_parquet_file_beside_a_tree_of_images_is_no_source(photos: Path) -> None:
    write(photos / "embeddings.parquet", b"PAR1")
    assert load_config(fit(photos, None, "parquet", [])["path"]).data.source == "imagefolder"


def test_unreadable_images_are_left_out(photos: Path) -> None:
    write(photos / "train" / "cat" / "3.png", b"no image")
    found = fit(photos, None, "parquet", [])
    assert load_config(found["path"]).data.on_error == "skip"
    assert "1 of the images" in found["reasons"]["data.on_error"]


@pytest.mark.parametrize(
    ("out", "changes", "says"),
    [
        ("there.yaml", [], "name another file by --out"),
        ("new.txt", [], "must end with .yaml"),
        ("new.yaml", ["data.root=elsewhere"], "leave out data.root"),
        ("new.yaml", ["targets.dims=3"], "did you mean targets.dim"),
        ("new.yaml", ["targets.dim"], "is not KEY=VALUE"),
    ],
)
def test_nothing_is_written_where_it_is_refused(
    photos: Path, out: str, changes: list[str], says: str
) -> None:
    Path("there.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=says):
        fit(photos, Path(out), "parquet", changes)
    assert [path.name for path in Path().glob("*.*")] == ["there.yaml"]
    assert Path("there.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("below", "says"),
    [
        (".", "try --fit .*photos"),
        ("my photos=1/train", "is one split"),
        ("my photos=1/val", "is one split"),
        ("nowhere", "is not a folder"),
    ],
)
def test_another_folder_is_an_error_that_says_which(photos: Path, below: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        fit(photos.parent / below, None, "parquet", [])


def test_fewer_images_than_a_shared_set_are_refused(tmp_path: Path) -> None:
    tree(tmp_path / "train", [f"{k}.png" for k in range(7)])
    with pytest.raises(DataError, match="has 7 images"):
        fit(tmp_path, tmp_path / "new.yaml", "parquet", [])


def test_the_error_of_a_shared_set_proposes_it_for_files_alone() -> None:
    ids = np.arange(20)
    with pytest.raises(DataError, match=r"at most 20; `coopt config --fit 'my images'`"):
        shared_set(ids, 21, 0, DataConfig("imagefolder", "my images"))
    with pytest.raises(DataError, match=r"at most 20$"):
        shared_set(ids, 21, 0, DataConfig("digits"))
    assert advised("another sentence", DATA) == "another sentence"


def test_the_command_line_fits_and_refuses(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def coopt(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["coopt", "config", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    code, out, shown = coopt("--fit", str(photos), "seed=2", "--json")
    found = json.loads(out)
    assert (code, load_config(found["path"]).seed) == (0, 2)
    assert "coopt run my-photos-1.yaml" in shown
    code, _, error = coopt("--fit", str(photos))
    assert (code, "name another file" in error) == (2, True)
    assert coopt("--fit", str(photos), "--explain")[0] == 2
    assert coopt("--out", "new.yaml")[0] == 2
