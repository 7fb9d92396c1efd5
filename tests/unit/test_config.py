"""Configuration: every key reachable, every error reported, the public surface frozen."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from coopt_fl.config.key import dataset_key
from coopt_fl.config.load import config_names, from_tree, load_config
from coopt_fl.config.rules import all_keys
from coopt_fl.core.errors import ConfigError
from coopt_fl.federation.centralized import single

KEYS = """
seed plugins data.source data.root data.limit data.on_error data.shards data.decode data.max_pixels
data.image_column data.label_column data.split.train data.split.test
data.license participants.0.license participants.0.name participants.0.prior participants.0.weight
min_participants shared.size targets.dim targets.projection targets.solver reference
targets.consensus assignment.most
optimize.block_rows optimize.batch_size optimize.chunk_mb assignment.by assignment.partition
payload.route audit.fraction audit.policy privacy.clip privacy.noise_multiplier
runtime.threads runtime.precision runtime.deterministic student.precision
simulation.actors simulation.address simulation.cpus simulation.gpus
student.model student.init student.epochs student.objective student.loss student.head student.whiten
student.batch_size student.lr student.weight_decay student.image_size student.augment probe.limit
deadline.join deadline.reply deadline.rejoin tracker
"""


def test_the_surface_changes_only_on_purpose() -> None:
    assert sorted(all_keys()) == sorted(KEYS.split())


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "digits", "imagenet", "parquet"])
def test_shipped_configurations_load(name: str) -> None:
    assert name in config_names()
    assert load_config(name).participants


def test_overrides_reach_scalars_list_items_and_new_items() -> None:
    config = load_config(
        "digits",
        [
            "student.lr=1e-4",
            "data.limit=400",
            "participants.1.prior=timm:resnet18",
            "participants.3.name=delta",
            "participants.3.prior=trivial:8",
            "runtime.deterministic=true",
            "student.image_size=null",
        ],
    )
    assert config.student.lr == 1e-4
    assert config.data.limit == 400
    assert config.participants[1].prior == "timm:resnet18"
    assert config.participants[3].name == "delta"
    assert config.runtime.deterministic is True


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["dirichlet"], "must be iid, dirichlet:ALPHA"),
        (["dirichlet:0"], "must be iid, dirichlet:ALPHA with ALPHA above 0"),
        (["dirichlet:2e6"], "at most 1e+06, or column:NAME"),
        (["dirichlet:-1"], "must be iid"),
        (["column:"], "must be iid"),
        (["IID"], "must be iid"),
        (["dirichlet:1", "assignment.by=speed"], "assignment.by: speed has no meaning with"),
        (["column:x", "min_participants=2"], "min_participants: 2 of 3 cannot go on alone"),
    ],
)
def test_a_partition_that_means_nothing_is_refused(settings: list[str], says: str) -> None:
    first, *others = settings
    with pytest.raises(ConfigError) as caught:
        load_config("digits", [f"assignment.partition={first}", *others])
    assert says in str(caught.value)
    load_config("digits", others)
    for fine in ("dirichlet:.5", "dirichlet:1e-3", "column:a b", "dirichlet:10"):
        load_config("digits", [f"assignment.partition={fine}", "min_participants=3"])


def test_a_tree_that_is_loaded_stays_as_it_was() -> None:
    tree = {"data": {"source": "digits"}, "participants": [{"name": "a", "prior": "trivial:8"}]}
    before = copy.deepcopy(tree)
    changed = from_tree(tree, ["seed=1", "participants.0.name=b", "data.limit=300"], "tree")
    assert changed.participants[0].name == "b"
    assert tree == before


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["student.weight_decay", "student.lr", "privacy.noise_multiplier"])
def test_a_number_that_is_not_finite_is_refused(key: str, number: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: '-?\.(inf|nan)' is not allowed"):
        load_config("digits", [f"{key}={number}"])


def test_all_errors_come_at_once_with_key_value_allowed_and_nearest() -> None:
    wrong = [
        "sede=1",
        "data.limt=3",
        "targets.solver=ridgee",
        "student.epochs=0",
        "seed=x",
        "participants.9.name=a",
        "optimize.chunk_mb=0",
        "runtime.deterministic=1",
        "nonsense",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config("digits", wrong)
    text = str(caught.value)
    for expected in (
        "sede: no such key (did you mean seed?)",
        "data.limt: no such key (did you mean data.limit?)",
        "targets.solver: 'ridgee' is not allowed (did you mean ridge?); allowed: ridge, procrustes",
        "student.epochs: 0 is not allowed; allowed: a whole number, at least 1",
        "seed: 'x' is not allowed; allowed: a whole number",
        "participants.9.name: there is no '9' in it (a list of 3",
        "optimize.chunk_mb: 0.0 is not allowed; allowed: a number, above 0",
        "runtime.deterministic: '1' is not allowed; allowed: true or false",
        "'nonsense' is not KEY=VALUE",
    ):
        assert expected in text


def test_impossible_combinations_come_at_once() -> None:
    wrong = [
        "shared.size=500",
        "data.limit=100",
        "data.source=parquet",
        "participants.1.name=alpha",
        "min_participants=7",
        "payload.route=s3://someone:hunter2@bucket/run",
        "data.shards=https://store.example/shards?signature=hunter2",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config("digits", wrong)
    text = str(caught.value)
    for expected in (
        "shared.size: 500",
        "data.root: missing",
        "'alpha' is given 2 times",
        "min_participants: 7",
        "payload.route: 's3://bucket/run' must have no user, password or query",
        "data.shards: 'https://store.example/shards' must have",
    ):
        assert expected in text
    assert "hunter2" not in text


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: ${b}", "seed: 1\nseed: 2", "\x00"])
def test_unreadable_yaml_is_a_config_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(str(path))


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean digits"):
        load_config("digit")


def test_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("parquet", ["data.root=here"]).data.root == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("student.epochs=3", True),
        ("simulation.actors=1", True),
        ("optimize.chunk_mb=1", True),
        ("probe.limit=5", True),
        ("deadline.join=9", True),
        ("min_participants=2", True),
        ("data.on_error=skip", True),
        ("data.decode=exact", True),
        ("data.decode=reduced", False),
        ("data.decode=device", False),
        ("seed=1", False),
        ("targets.dim=64", False),
        ("optimize.batch_size=8", False),
        ("optimize.block_rows=65", False),
        ("targets.solver=procrustes", False),
        ("participants.0.weight=2", False),
        ("runtime.threads=2", False),
        ("targets.consensus=pca", True),
        ("targets.consensus=gcca", False),
        ("assignment.partition=iid", True),
        ("assignment.partition=dirichlet:1", False),
    ],
)
def test_the_dataset_key_holds_what_the_dataset_depends_on(change: str, same: bool) -> None:
    """A run may resume with changed settings if they affect no finished block."""
    before = dataset_key(load_config("digits"), "f")
    assert (dataset_key(load_config("digits", [change]), "f") == before) is same


def test_the_most_that_one_may_get_is_for_competence_alone() -> None:
    keys = {
        most: dataset_key(load_config("digits", ["assignment.by=competence", *most]), "f")
        for most in [(), ("assignment.most=2",), ("assignment.most=3",), ("assignment.most=null",)]
    }
    assert len(set(keys.values())) == 3
    assert keys[()] == keys[("assignment.most=2",)]
    with pytest.raises(ConfigError, match=r"assignment\.most=3\.0 has no meaning with .*=weight"):
        load_config("digits", ["assignment.most=3"])
    with pytest.raises(ConfigError, match=r"most=null has no meaning .*leave it out$"):
        load_config("digits", ["assignment.most=null", "assignment.partition=dirichlet:1"])
    with pytest.raises(ConfigError, match=r"assignment\.most"):
        load_config("digits", ["assignment.by=competence", "assignment.most=0.5"])


@pytest.mark.parametrize(
    "other", ["reference=best", "targets.projection=random", "targets.solver=none"]
)
def test_another_consensus_is_refused_where_there_is_none(other: str) -> None:
    with pytest.raises(ConfigError, match=f"gcca has no meaning with {other}"):
        load_config("digits", ["targets.consensus=gcca", other])


def test_a_centralized_run_leaves_out_what_needs_several_participants() -> None:
    """Processes that train together read its configuration again."""
    together = ["assignment.by=competence", "assignment.most=3", "min_participants=2"]
    config = load_config("digits", [*together, "targets.consensus=gcca"])
    alone = single(config, "alpha")
    assert from_tree(asdict(alone), [], "again") == alone
    assert alone.reference == "best" and len(alone.participants) == 1


def test_the_dataset_key_is_that_of_before_there_were_columns_and_splits() -> None:
    """The key is that of commit 7469569; column and split are part of the data's fingerprint."""
    known = "868d163df8be4ddcc3f9ee6ba643450a9cec2054b3e225349d1957845c66099d"
    assert dataset_key(load_config("digits"), "f") == known


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["data.image_column=x"], r"data\.image_column: data\.source=digits has none to choose"),
        (["data.split.train=x"], r"data\.split: data\.source=digits has none to choose"),
        (
            ["data.source=imagefolder", "data.root=x", "data.label_column=y"],
            r"data\.label_column: ",
        ),
        (
            ["data.source=hf", "data.root=x", "data.split={train: y, test: y}"],
            r"data\.split: both are y; judge on another",
        ),
        (["data.split.tarin=x"], r"did you mean data\.split\.train"),
    ],
)
def test_columns_and_splits_are_those_of_sources_that_have_some(
    changes: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config("digits", changes)


def test_a_root_may_be_a_url_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is a symbolic link keeps its own folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "blob").write_bytes(b"path")
    (tmp_path / "lists/a.csv").symlink_to(tmp_path / "blob")
    for root, wanted in {
        "s3://x/y-{000..009}.tar": "s3://x/y-{000..009}.tar",
        "lists/a.csv": str(tmp_path / "lists/a.csv"),
        "lists": str(tmp_path / "lists"),
    }.items():
        config = load_config("parquet", ["data.source=webdataset", f"data.root={root}"])
        assert config.data.root == wanted


def test_the_dataset_key_follows_the_data() -> None:
    config = load_config("digits")
    assert dataset_key(config, "f") != dataset_key(config, "g")


def test_round_trip_through_plain_values() -> None:
    values = asdict(load_config("digits", ["seed=3"]))
    assert values["seed"] == 3
    assert values["participants"][0]["name"] == "alpha"


@pytest.mark.parametrize("name", ["", "../../elsewhere", "[/b]", "consensus", "a b", "x" * 65])
def test_names_are_fit_for_files_and_tables(name: str) -> None:
    with pytest.raises(ConfigError, match=r"participants\.1\.name"):
        load_config("digits", [f"participants.1.name={json.dumps(name)}"])


@pytest.mark.parametrize("address", ["auto", "local", "ray://host:10001", "host", ":6379"])
def test_a_cluster_is_named_by_host_and_port(address: str) -> None:
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        load_config("digits", [f"simulation.address={address}"])
    assert load_config("digits", ["simulation.address=host:6379"])


def test_the_actors_on_a_cluster_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"simulation\.actors cannot be chosen"):
        load_config("digits", ["simulation.address=host:6379", "simulation.actors=2"])


@pytest.mark.parametrize("key", ["data.license", "participants.0.license"])
def test_a_licence_is_a_name_that_can_be_published(key: str) -> None:
    for words in ("cc-by-4.0", "https://example.org/terms?v=1", "of our own"):
        load_config("digits", [f"{key}={words}"])
    for words in ("/home/ann/LICENSE", "~/x", r"C:\\x", "file:///x", "a|b", "x" * 101, "''"):
        with pytest.raises(ConfigError, match=f"{key}: .* is not 1 to 100 printable letters"):
            load_config("digits", [f"{key}={words}"])
