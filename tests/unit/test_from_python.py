"""Calls from Python: own models and images, their identity, and refusals."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import coopt_fl
from coopt_fl.config.overrides import settings_of
from coopt_fl.core.errors import ConfigError, OutputError, PriorError
from coopt_fl.core.progress import Progress
from coopt_fl.data import open_labels, open_source
from coopt_fl.data.own import OwnSource
from coopt_fl.federation import job
from coopt_fl.priors import load_prior

HALF = (0.5, 0.5, 0.5)
SMALL = {
    "shared.size": 32,
    "targets.dim": 8,
    "optimize.block_rows": 20,
    "student.model": "convnet:4",
    "student.epochs": 2,
    "student.batch_size": 32,
}


class Pooled(nn.Module):
    """A test prior that averages squares of pixels, and mixes them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Parameter(torch.randn(48, 24, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ self.mix


def prior(seed: int = 0, **changes: Any) -> coopt_fl.Prior:
    settings = {"name": "pooled", "size": 8, "mean": HALF, "std": HALF} | changes
    return coopt_fl.Prior.from_module(Pooled(seed), **settings)


def pictures(seed: int = 0) -> OwnSource:
    """Return images of three classes, which differ in brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 130)
    images = (rng.integers(0, 60, (130, 8, 8, 3)) + 60 * labels[:, None, None, None]).astype("u1")
    return coopt_fl.data.from_arrays(
        images[:80], labels[:80], test_images=images[80:], test_labels=labels[80:]
    )


def central(out: Path, **changes: Any) -> coopt_fl.Result:
    given = {"prior": prior(), "source": pictures(), "out": out, "progress": None} | changes
    return coopt_fl.centralized("digits", SMALL, **given)


def test_an_own_model_labels_own_images_and_a_student_learns_them(tmp_path: Path) -> None:
    done = central(tmp_path / "run")
    assert done.summary["dataset"]["rows"] == len(done.dataset) == 80
    assert done.summary["student"]["probe_accuracy"] > 0.8
    assert done.student.features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape == (2, 16)
    (contributor,) = done.dataset.provenance.contributors
    assert contributor.prior == prior().id
    assert contributor.weights_sha256 == prior().sha256

    source = pictures()
    features = prior().features(torch.stack(source.read(source.ids)))
    known = np.c_[features.numpy(), np.ones(80)].astype(float)
    targets = done.dataset.targets[np.argsort(done.dataset.ids)].astype(float)
    weight, *_ = np.linalg.lstsq(known, targets, rcond=None)
    assert np.abs(known @ weight - targets).max() < 2e-2, "one affine map of the features"


def test_the_same_call_resumes_and_other_objects_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    digest = central(out).dataset.digest
    blocks = {file: file.stat().st_mtime_ns for file in out.rglob("*.npz")}
    assert central(out).dataset.digest == digest
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.npz")} == blocks
    for other in (prior(seed=1), prior(size=16), prior(std=(0.4, 0.5, 0.5)), prior(name="other")):
        with pytest.raises(OutputError, match=r"other settings or data .*prior: module:"):
            central(out, prior=other)
    with pytest.raises(OutputError, match="belongs to a run on other images"):
        central(out, source=pictures(seed=1))
    assert open_source(coopt_fl.DataConfig("arrays", str(out / "source"))).fingerprint == (
        pictures().fingerprint
    ), "what the run has is kept"


def test_all_commands_find_the_images_that_a_program_gave(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = central(out)
    trained = coopt_fl.train(out, {"student.epochs": 1}, progress=None)
    assert trained["epochs"] == 1
    probed = coopt_fl.probe(out / "student" / "checkpoint.pt")
    assert probed["accuracy"]["lbfgs"] == done.summary["student"]["probe_accuracy"]
    found = coopt_fl.pretrain(
        "digits", SMALL, objective="regression", dataset=out, source=pictures(),
        out=tmp_path / "ours", progress=None,
    )  # fmt: skip
    assert found["accuracy"]["mean"] > 0.8
    assert coopt_fl.inspect(out)["problems"] == []


def test_a_dataset_that_went_elsewhere_says_how_to_give_its_images(tmp_path: Path) -> None:
    out = tmp_path / "run"
    central(out)
    moved = (out / "dataset").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"source\.save\(DIR\)"):
        coopt_fl.train(moved, progress=None)
    pictures().save(tmp_path / "saved")
    where = {"data.root": str(tmp_path / "saved")}
    assert coopt_fl.train(moved, where, out=tmp_path / "new", progress=None)["epochs"] == 2


def test_it_works_from_a_thread(tmp_path: Path) -> None:
    done: list[coopt_fl.Result] = []
    thread = threading.Thread(target=lambda: done.append(central(tmp_path / "run")))
    thread.start()
    thread.join()
    assert done[0].dataset.digest == central(tmp_path / "here").dataset.digest


def test_where_the_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another dataset gets a directory of its own; another student does not."""
    monkeypatch.chdir(tmp_path)
    tiny = {"data.limit": 60, "student.epochs": 1, "student.model": "convnet:2"}
    one, other = ({**tiny, "seed": seed} for seed in (0, 1))
    for settings in (one, other, {**one, "student.epochs": 2}):
        coopt_fl.centralized("digits", {**SMALL, **settings}, prior="trivial:16", progress=None)
    first, second = sorted(Path("runs").iterdir())
    assert first.name.startswith("digits-centralized-trivial-16-")
    assert first.name[:-8] == second.name[:-8]


def test_a_table_in_a_notebook(tmp_path: Path) -> None:
    shown = central(tmp_path / "run")._repr_html_()
    assert "pooled" in shown
    assert "<pre>" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "the name 'a b' of a prior is not allowed"),
        ({"mean": (0.5,)}, "mean and std have three entries"),
        ({"std": (0.5, 0, 0.5)}, "mean and std have three entries"),
        ({"interpolation": "nearest"}, "unknown interpolation"),
    ],
)
def test_a_prior_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        prior(**changes)


def test_a_module_that_gives_no_features() -> None:
    with pytest.raises(PriorError, match=r"shape \(1, 3, 8, 8\)"):
        coopt_fl.Prior.from_module(nn.Identity(), name="none", size=8, mean=HALF, std=HALF)


def test_a_prior_leaves_the_module_as_it_was() -> None:
    module = Pooled().train()
    made = coopt_fl.Prior.from_module(module, name="mine", size=8, mean=HALF, std=HALF)
    assert module.training
    assert module.mix.requires_grad
    with torch.no_grad():
        module.mix.zero_()
    assert made.features(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)).abs().sum() > 0


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    made = prior()
    object.__setattr__(made.model, "lock", threading.Lock())
    with pytest.raises(ConfigError, match=r"pooled@\w+ cannot be pickled"):
        central(tmp_path / "run", prior=made)


WRONG = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (WRONG.astype(float), None, r"must be uint8 .*not float64"),
        (WRONG.transpose(0, 3, 1, 2), None, r"channels last: images\.transpose\(0, 2, 3, 1\)"),
        (WRONG[0, 0], None, "must be uint8"),
        (WRONG[:0], None, "must be uint8"),
        (WRONG, [0, 1], "must be 4 whole numbers"),
        (WRONG, ["a", "b", "c", "d"], "must be 4 whole numbers"),
        (WRONG, [0, 1, 2, -1], "must be 4 whole numbers"),
    ],
)
def test_arrays_that_are_none(images: Any, labels: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        coopt_fl.data.from_arrays(images, labels)


def test_a_dataset_of_any_kind_of_image_keeps_every_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (5, 7, 3), np.uint8)
    grey = rng.integers(0, 256, (6, 4), np.uint8)
    rows = [
        (Image.fromarray(colour), 0),
        (Image.fromarray(grey), 1),
        (colour, 2),
        (grey, torch.tensor(3)),
        (torch.from_numpy(colour).permute(2, 0, 1), 4),
        (torch.from_numpy(colour).permute(2, 0, 1) / 255, np.int64(5)),
        (torch.from_numpy(grey)[None], 6),
    ]
    thrice = grey[..., None].repeat(3, axis=2)
    wanted = [colour, thrice, colour, thrice, colour, colour, thrice]
    source = coopt_fl.data.from_dataset(rows, rows[:2])
    data = source.save(tmp_path)
    saved = open_source(data)
    assert saved.fingerprint == source.fingerprint
    for opened in (source, saved):
        for image, expected in zip(opened.read(opened.ids), wanted, strict=True):
            assert (image.permute(1, 2, 0).numpy() == expected).all()
    labels = open_labels(data, "train")
    assert labels is not None
    assert labels.tolist() == list(range(7))
    data.limit = 3
    assert len(open_source(data)) == 3
    assert len(open_source(data, "test")) == 2


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("text", "must be"),
        ((np.zeros((4, 4), float), 0), "image 0 of the dataset must be"),
        ((torch.full((3, 4, 4), 200.0), 0), "image 0 of the dataset"),
        ((np.zeros((4, 4, 2), np.uint8), 0), "image 0 of the dataset"),
        ((np.zeros((4, 4), np.uint8), "cat"), "whole numbers"),
    ],
)
def test_a_dataset_of_something_else(item: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        coopt_fl.data.from_dataset([item])


def test_what_is_saved_replaces_all_that_was_there(tmp_path: Path) -> None:
    pictures().save(tmp_path)
    rng = np.random.default_rng(5)
    ragged = [(rng.integers(0, 256, (5, size, 3), np.uint8), None) for size in (4, 6)]
    data = coopt_fl.data.from_dataset(ragged).save(tmp_path)
    assert open_labels(data, "train") is None
    with pytest.raises(coopt_fl.DataError, match="test-images"):
        open_source(data, "test")
    data = coopt_fl.data.from_arrays(rng.integers(0, 256, (2, 4, 4), np.uint8)).save(tmp_path)
    assert open_source(data).image_size == (4, 4)


def test_a_save_that_was_stopped_is_done_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    digest = central(out).dataset.digest
    (out / "source" / "train-images.npy").unlink()
    assert central(out).dataset.digest == digest
    np.save(out / "source" / "train-images.npy", np.zeros(3))
    with pytest.raises(
        coopt_fl.DataError, match=r"train-images are float64 \(3,\), not uint8 .*; save them"
    ):
        central(out)


def test_priors_that_differ_in_what_they_do_have_other_names() -> None:
    half = {"name": "mine", "size": 8, "mean": HALF, "std": HALF}
    mean, most = (
        coopt_fl.Prior.from_module(nn.Sequential(pool, nn.Flatten()), **half)
        for pool in (nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2))
    )
    assert mean.sha256 == most.sha256, "they have no weights"
    assert mean.id != most.id


def test_a_loaded_prior_is_known_by_its_specification(tmp_path: Path) -> None:
    done = central(tmp_path / "run", prior=load_prior("trivial:24"))
    (contributor,) = done.dataset.provenance.contributors
    assert contributor.prior == "trivial:24"


def test_settings_of_any_kind_of_value(tmp_path: Path) -> None:
    config = coopt_fl.load_config("digits", settings_of({
        "student.epochs": np.int64(2), "student.lr": np.float32(0.5), "data.root": tmp_path / "é😀",
    }))  # fmt: skip
    assert (config.student.epochs, config.student.lr) == (2, 0.5)
    assert config.data.root == str(tmp_path / "é😀")


def test_one_way_to_give_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source= gives the images: leave out data\.source"):
        coopt_fl.centralized(
            "digits", {"data.source": "synthetic"}, prior="trivial:8", source=pictures(),
            out=tmp_path, progress=None,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="progress='loud' is not allowed"):
        central(tmp_path / "run", progress="loud")


def test_a_bare_module_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give coopt_fl\.Prior\.from_module"):
        coopt_fl.run(
            "digits", SMALL, participants=[{"name": "a", "prior": Pooled()}],
            source=pictures(), out=tmp_path, progress=None,
        )  # fmt: skip


def test_public_names_are_found_by_help_and_stay_functions(tmp_path: Path) -> None:
    """Importing a package of the same name would replace the function."""
    import coopt_fl.report.page

    assert {"run", "write_report", "Prior", "register"} <= set(dir(coopt_fl))
    for name in coopt_fl.__all__:
        made = getattr(coopt_fl, name)
        assert (type(made).__name__ == "module") == (name in ("data", "register"))


def test_what_is_printed_fits_on_a_line(tmp_path: Path) -> None:
    done = central(tmp_path / "run")
    for made in (done, done.dataset, done.student, pictures()):
        assert len(repr(made)) < 200
    assert prior().id[:24] in repr(done._repr_html_())
    assert prior().id[-8:] not in done._repr_html_()


def test_settings_that_change_nothing_are_refused(tmp_path: Path) -> None:
    central(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"targets\.dim=3 would change nothing"):
        coopt_fl.train(tmp_path / "run", {"targets.dim": 3}, progress=None)
    assert coopt_fl.probe(tmp_path / "run", progress=None)["accuracy"]["lbfgs"] > 0.8


@pytest.mark.parametrize(("score", "warned"), [(0.5, True), (1.0, False)])
def test_a_student_that_learned_nothing_is_said(
    score: float, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "probe_student", lambda *_: score)
    told = Told()
    central(tmp_path / "run", progress=told)
    assert any("is no better than an untrained one" in one for one in told.warnings) == warned


class Told(Progress):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)
