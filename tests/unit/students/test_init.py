"""``student.init``: a training starts from the named weights, or refuses with a reason."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from coopt_fl.config.load import load_config
from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.optimized.public import public_config
from coopt_fl.priors import load_prior
from coopt_fl.students.checkpoint import load_student, read_checkpoint, save_student, shareable
from coopt_fl.students.initial import initial_student, student_settings
from coopt_fl.students.probe import random_student
from coopt_fl.students.train import _license, train_student

DATA = DataConfig(source="synthetic", limit=64)
STUDENT = StudentConfig(model="convnet:4", epochs=1, precision="float32")


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    student = random_student(STUDENT, DATA, seed=7)
    path = tmp_path / "run" / "student" / "checkpoint.pt"
    save_student(path, replace(student, meta={"data": asdict(DATA)}))
    return path


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_checkpoint_or_its_run_gives_its_weights(pretrained: Path) -> None:
    for init in (pretrained, pretrained.parent, pretrained.parents[1]):
        student = initial_student(replace(STUDENT, init=str(init)), 8, seed=0)
        assert same(student, load_student(pretrained).model)
    assert not same(initial_student(STUDENT, 8, seed=0), student)


def test_timms_weights_are_a_beginning(tmp_path: Path) -> None:
    spec = "timm:tf_efficientnet_lite0@bundled"
    config = replace(STUDENT, model="timm:tf_efficientnet_lite0", init=spec)
    student = initial_student(config, 72, seed=0)
    assert same(student.backbone, load_prior(spec).model)


@pytest.mark.parametrize(
    ("model", "size", "init", "says"),
    [
        ("convnet:8", 8, "CHECKPOINT", r"do not fit student\.model=convnet:8 at 8 pixels"),
        ("convnet:4", 80, "CHECKPOINT", r"set the student\.model and the student\.image_size"),
        (
            "timm:tf_efficientnet_lite1",
            72,
            "timm:tf_efficientnet_lite0@bundled",
            r"do not fit student\.model=timm:tf_efficientnet_lite1",
        ),
        ("convnet:4", 8, "nowhere.pt", "there is no checkpoint nowhere.pt"),
    ],
)
def test_weights_of_another_model_are_one_sentence(
    model: str, size: int, init: str, says: str, pretrained: Path
) -> None:
    init = init.replace("CHECKPOINT", str(pretrained))
    with pytest.raises(ConfigError, match=says) as raised:
        initial_student(replace(STUDENT, model=model, init=init), size, seed=0)
    assert "\n" not in str(raised.value)


def test_weights_that_are_nowhere_are_refused() -> None:
    with pytest.raises(PriorError, match="timm has no model"):
        initial_student(replace(STUDENT, init="timm:nothing"), 72, seed=0)


def test_a_small_stem_names_the_setting() -> None:
    config = replace(STUDENT, model="resnet18", init="random:resnet18")  # which needs no download
    with pytest.raises(ConfigError, match=r"set a larger student\.image_size"):
        initial_student(config, 32, seed=0)


def test_a_training_begins_there_and_records_it(pretrained: Path, tmp_path: Path) -> None:
    """With a step size of 0 the weights stay; other weights at the same path start it anew."""
    student = replace(STUDENT, objective="simclr", init=str(pretrained), lr=1e-12)
    config = Config(data=DATA, student=student)
    trained = train_student(None, config, tmp_path / "out")
    own = load_student(trained.checkpoint).model.backbone
    first = load_student(pretrained).model.backbone
    torch.testing.assert_close(own.stages[0].conv.weight, first.stages[0].conv.weight)
    known = read_checkpoint(trained.checkpoint)["meta"]["student"]
    assert known["init"] is None and len(known["init_sha256"]) == 64
    written = trained.checkpoint.read_bytes()
    moved = pretrained.rename(tmp_path / "moved.pt")
    train_student(
        None, replace(config, student=replace(student, init=str(moved))), tmp_path / "out"
    )
    moved.rename(pretrained)
    assert trained.checkpoint.read_bytes() == written
    save_student(pretrained, random_student(STUDENT, DATA, seed=8))
    train_student(None, config, tmp_path / "out")
    assert (
        read_checkpoint(trained.checkpoint)["meta"]["student"]["init_sha256"]
        != (known["init_sha256"])
    )


@pytest.mark.parametrize(
    ("init", "stated", "follows"),
    [
        ("CHECKPOINT", {"license": "non-commercial"}, "non-commercial"),
        ("checkpoint:CHECKPOINT", {"license": "non-commercial"}, "non-commercial"),
        ("CHECKPOINT", {}, "unknown"),
        ("random:resnet18", {}, "apache-2.0"),
        (None, {}, "apache-2.0"),
    ],
)
def test_its_licence_holds_for_the_student(
    init: str | None, stated: dict[str, str], follows: str, pretrained: Path
) -> None:
    """Even with free images, the licence of the initial weights applies to the student."""
    save_student(pretrained, replace(load_student(pretrained), meta=stated))
    named = init and init.replace("CHECKPOINT", str(pretrained))
    data = replace(DATA, license="apache-2.0")
    assert _license(None, Config(data=data, student=replace(STUDENT, init=named))) == follows


def test_what_is_shared_names_no_file(pretrained: Path) -> None:
    """This includes checkpoints of earlier versions, which stored the path."""
    meta = {"data": asdict(DATA), "student": {"init": str(pretrained), "init_sha256": "0" * 64}}
    save_student(pretrained, replace(load_student(pretrained), meta=meta))
    shared = shareable(pretrained)
    assert shared is not None and str(pretrained.parent).encode() not in shared
    pretrained.write_bytes(shared)
    assert read_checkpoint(pretrained)["meta"]["student"] == {
        "init": None,
        "init_sha256": "0" * 64,
    }


def test_settings_without_it_are_those_of_before_it() -> None:
    """Otherwise a training begun by an earlier version would start anew."""
    assert not {"init", "init_sha256", "precision"} & set(student_settings(STUDENT))
    assert same(
        random_student(replace(STUDENT, init="nowhere.pt"), DATA, 3).model,
        random_student(STUDENT, DATA, 3).model,
    )


def test_what_is_published_names_no_file(pretrained: Path) -> None:
    for init, said in (
        (str(pretrained), None),
        (f"checkpoint:{pretrained}", None),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
    ):
        published = public_config(Config(student=replace(STUDENT, init=init)))
        assert published["student"]["init"] == said


def test_a_path_is_of_the_folder_where_it_was_given() -> None:
    assert load_config("digits", ["student.init=a.pt"]).student.init == str(Path("a.pt").resolve())
    assert load_config("digits", ["student.init=timm:a"]).student.init == "timm:a"
    assert load_config("digits").student.init is None
