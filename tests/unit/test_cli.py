"""The command line's surface: exit codes, one-sentence errors, JSON; none of this starts Ray."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from coopt_fl import api
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.federation import job
from coopt_fl.federation.holding import open_state
from coopt_fl.optimized.licences import licence_of, statements
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.report.collect import collect
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.judgements import judgements
from tests.unit.command import Coopt


def test_all_mistakes_are_reported_at_once(coopt: Coopt) -> None:
    code, _, err = coopt("run", "digits", "student.epoch=3", "shared.size=x", "reference=worst")
    assert code == 2
    assert "student.epochs" in err and "shared.size" in err and "consensus" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "digit"), 2, "did you mean digits"),
        (("run", "nowhere.yaml"), 2, "no configuration file nowhere.yaml"),
        (("run", "parquet", "data.root=nowhere"), 3, "is not a folder"),
        (("run", "digits", "participants.1.prior=timm:resnet18x"), 4, "participant beta"),
        (("run", "digits", "participants.1.prior=tim:resnet18"), 4, "timm"),
        (("run", "digits", "student.model=resnet81"), 2, "resnet81"),
        (("run", "digits", "student.objective=byol"), 2, "coopt pretrain"),
        (("run", "digits", "shared.size=7"), 2, "at least 8"),
        (("run", "digits", "shared.size=5000"), 3, "shared.size=5000"),
        (("centralized", "digits", "--prior", "omega"), 2, "alpha, beta, gamma"),
        (("centralized", "digits", "--prior", "alpha", "privacy.clip=1"), 2, "uploads nothing"),
        (("inspect", "nowhere"), 2, "no directory nowhere"),
        (("train", "nowhere"), 2, "no directory nowhere"),
        (("probe", "nowhere.pt"), 2, "there is no checkpoint nowhere.pt"),
        (("probe", "tiny.yaml"), 2, "not a checkpoint of a student; give a checkpoint.pt that"),
        (("--quiet", "run", "digit"), 2, "did you mean digits"),
        (("run", "digit", "--verbose", "--quiet"), 2, "not both"),
        (("bench", "optimise"), 2, "there is no benchmark 'optimise'"),
        (("bench", "--compare", "nowhere.json"), 2, "nowhere.json cannot be read"),
        (("run", "--colour"), 2, "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    coopt: Coopt, arguments: tuple[str, ...], code: int, says: str
) -> None:
    got, _, err = coopt(*arguments)
    assert (got, "Traceback" in err) == (code, False)
    assert says in " ".join(err.split())


@pytest.mark.parametrize(
    "words", ["run digit", "centralized digit --prior alpha", "pretrain digits --objective bylo"]
)
def test_a_wrong_configuration_is_refused_before_anything_slow_is_imported(words: str) -> None:
    script = (
        "import sys; from coopt_fl.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()], capture_output=True, text=True
    )
    assert (done.returncode, "did you mean" in done.stderr) == (2, True)
    assert not {"torch", "flwr", "ray"} & set(done.stdout.split())


def test_a_foreign_directory_is_refused(coopt: Coopt) -> None:
    (coopt.folder / "run").mkdir()
    (coopt.folder / "run" / "thesis.tex").write_text("mine")
    code, _, err = coopt.centralized()
    assert code == 6
    assert "is not empty and holds no run" in err


def test_the_baseline_from_images_to_probe(coopt: Coopt) -> None:
    """One prior, no Flower: make, make again, inspect, train another student, probe it."""
    code, out, _ = coopt.centralized("assignment.by=speed")  # one has all, however fast
    summary = json.loads(out.splitlines()[-1])
    assert code == 0
    assert summary["reference"] == "alpha"
    assert summary["dataset"]["rows"] == 120
    assert [row["r2_heldout"] for row in summary["participants"]] == [1.0]
    assert json.loads((coopt.folder / "run" / "summary.json").read_text()) == summary

    assert json.loads(coopt.centralized()[1].splitlines()[-1])["dataset"] == summary["dataset"]
    code, _, err = coopt.centralized("targets.dim=4")
    assert code == 6
    assert "targets.dim: 8 there, 4 here" in err

    code, out, _ = coopt("train", "run", "--model", "convnet:3", "--json")
    checkpoint = json.loads(out.splitlines()[-1])["checkpoint"]
    assert code == 0
    code, out, _ = coopt("probe", checkpoint, "--json")
    accuracy = json.loads(out.splitlines()[-1])["accuracy"]
    assert code == 0
    assert set(accuracy) == {"lbfgs", "adamw"}
    assert all(0 <= value <= 1 for value in accuracy.values())


def test_inspect_tells_a_whole_dataset_from_a_tampered_one(coopt: Coopt) -> None:
    coopt.centralized()
    code, out, _ = coopt("inspect", "run", "--json")
    assert (code, json.loads(out.splitlines()[-1])["problems"]) == (0, [])
    (part,) = (coopt.folder / "run" / "dataset" / "data").glob("*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    code, out, _ = coopt("inspect", "run")
    assert code == 1
    assert "has changed since it was published" in " ".join(out.split())


def test_a_corrupt_image_is_named_or_counted(coopt: Coopt) -> None:
    folder = coopt.folder / "images" / "train" / "things"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "07.png").write_bytes(b"no image")
    images = ("data.source=imagefolder", f"data.root={coopt.folder / 'images'}", "data.limit=null")
    code, _, err = coopt.centralized(*images, "shared.size=20")
    assert code == 3
    assert "07.png" in err and "data.on_error=skip" in err
    Path("run").rename("refused")
    code, out, _ = coopt.centralized(*images, "shared.size=20", "data.on_error=skip")
    summary = json.loads(out.splitlines()[-1])
    assert (code, summary["dataset"]["rows"]) == (0, 39)
    assert summary["student"]["probe_accuracy"] is None
    found = json.loads(coopt("inspect", "run", "--json")[1].splitlines()[-1])
    assert len(found["provenance"]["skipped"]) == 1


def test_seconds_are_those_of_the_student_that_is_there(coopt: Coopt) -> None:
    """The time of trainings that were replaced by another does not count."""
    assert coopt.centralized()[0] == 0
    record = coopt.folder / "run" / "state" / "seconds.json"
    (spent,) = json.loads(record.read_text())
    record.write_text(json.dumps([spent | {"student": 1000.0, "probe": 1000.0}]))
    for changes in ((), ("student.epochs=2",)):
        code, out, _ = coopt.centralized(*changes)
        summary = json.loads(out.splitlines()[-1])
        assert code == 0
        assert summary["seconds"]["student"] == summary["student"]["seconds"]
        assert 0 < summary["seconds"]["probe"] < 1000
        assert summary["seconds"]["optimize"] == spent["optimize"]


def test_seconds_of_earlier_attempts_are_told_apart(coopt: Coopt) -> None:
    """The first attempt, by an earlier version, stopped after the targets."""
    assert coopt.centralized()[0] == 0
    record, run = coopt.folder / "run" / "state" / "seconds.json", coopt.folder / "run"
    assert json.loads((run / "summary.json").read_text())["earlier_seconds"] == {}
    record.write_text(json.dumps({"align": 7.0, "optimize": 1000.0}))
    shutil.rmtree(run / "dataset")
    coopt.centralized("student.epochs=2")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["earlier_seconds"]["optimize"] == 1000 < summary["seconds"]["optimize"] < 1010
    assert set(summary["earlier_seconds"]) == {"align", "optimize", "probe"}
    code, out, _ = coopt("centralized", coopt.tiny, "--prior", "alpha", "--out", str(run))
    assert (code, "Seconds (of these in earlier attempts): " in out, "(1000.0)" in out) == (
        0,
        True,
        True,
    )


def test_a_licence_that_a_finished_dataset_does_not_state_is_told_and_what_to_do(
    coopt: Coopt,
) -> None:
    """The warning's advice, followed, writes the licence everywhere and the same targets."""
    run = coopt.folder / "run"
    dataset, student = run / "dataset", run / "student"

    def licences() -> tuple[str, str]:
        own = load_student(student / "checkpoint.pt").meta["license"]
        return licence_of(statements(read_provenance(dataset))).short, own

    other = ("data.license=apple-amlr", "participants.0.license=mit")
    _, out, err = coopt.centralized()
    digest, before = json.loads(out.splitlines()[-1])["dataset"]["digest"], licences()
    assert "keeps the licences" not in err + coopt.centralized("student.epochs=2")[2]
    told = " ".join(coopt.centralized(*other)[2].split())
    assert "data.license: None there, apple-amlr here; participants.0.license: None" in told
    assert f"delete it and {student}" in told
    assert licences() == before
    for folder in (dataset, student):
        shutil.rmtree(folder)
    blocks = {file: file.stat().st_mtime_ns for file in run.rglob("blocks/*")}
    _, out, err = coopt.centralized(*other)
    assert json.loads(out.splitlines()[-1])["dataset"]["digest"] == digest
    assert {file: file.stat().st_mtime_ns for file in run.rglob("blocks/*")} == blocks
    assert "keeps the licences" not in err
    assert licences() == ("non-commercial", "non-commercial") != before
    assert "keeps the licences" not in coopt.centralized(*other)[2]


def test_a_probe_is_kept_for_the_report_beside_those_on_other_images(coopt: Coopt) -> None:
    coopt.centralized()
    checkpoint = coopt.folder / "run" / "student" / "checkpoint.pt"
    for limit in (60, 40, 60):
        assert coopt("probe", str(checkpoint), f"data.limit={limit}")[0] == 0
    (run,) = collect([coopt.folder / "run"])
    assert run.student is not None
    student = run.student.first
    assert [one.data["limit"] for one in student.judgements] == [40, 60]
    assert student.accuracy == run.summary["student"]["probe_accuracy"]  # type: ignore[index]
    assert coopt.centralized("student.epochs=2")[0] == 0  # another student, nobody judged it
    assert judgements(checkpoint) == []


def test_what_nobody_foresaw_is_one_sentence_and_a_log(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(job, "_prepare", fail)
    monkeypatch.setattr(api, "inspect", fail)
    code, _, err = coopt.centralized()
    assert (code, err.count("\n"), "Traceback" in err) == (1, 2, False), "after where it goes"
    assert "KeyError: 'planted'" in err and "run/state/log.txt" in err
    assert "in fail" in (coopt.folder / "run" / "state" / "log.txt").read_text()
    monkeypatch.setenv("COOPT_CACHE", str(coopt.folder / "cache"))
    code, _, err = coopt("inspect", "run", "--verbose")
    assert (code, "in fail" in err) == (1, True)
    assert f"{coopt.folder / 'cache' / 'log.txt'}" in err.splitlines()[-1]


def test_quiet_prints_the_result_and_nothing_else(coopt: Coopt) -> None:
    code, out, err = coopt("centralized", coopt.tiny, "--prior", "alpha", "--quiet")
    assert (code, err) == (0, "") and "Digest:" in out


def test_train_says_what_comes_next(coopt: Coopt) -> None:
    coopt.centralized()
    code, out, err = coopt("train", "run", "--model", "convnet:3")
    assert (code, "student 1/1 epoch loss" in err) == (0, True)
    first, _, *then = out.splitlines()
    assert "convnet:3: 1 epoch in" in first
    commands = [line.partition(": ")[2].split() for line in then]
    checkpoint = str(Path("run", "students", "convnet-3", "checkpoint.pt"))
    assert commands == [["coopt", "probe", checkpoint], ["coopt", "report", "run"]]
    out = coopt("train", "run", "--model", "convnet:3", "--out", "elsewhere")[1]
    assert "coopt report" not in out and Path("elsewhere", "log.txt").is_file()


def test_doctor_says_what_is_usable(coopt: Coopt) -> None:
    code, out, _ = coopt("doctor", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["priors"]["timm:tf_efficientnet_lite0@bundled?size=96"] is None
    assert found["sources"]["digits"] is None
    assert "data.root" in found["sources"]["parquet"]


def test_config_prints_what_run_would_use(coopt: Coopt) -> None:
    code, out, _ = coopt("config", "digits", "participants.1.prior=trivial:9", "seed=4")
    printed = yaml.safe_load(out)
    assert code == 0
    assert printed["participants"][1]["prior"] == "trivial:9"
    assert printed["seed"] == 4


def test_a_score_is_of_the_probe_and_of_the_labels_that_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_state(tmp_path, "key", {}) as state:
        scores = iter([0.1, 0.2, 0.3])

        def ask(data: DataConfig) -> float | None:
            return job._remembered(Config(data=data), state, "student", ["x"], lambda: next(scores))

        other = DataConfig(label_column="fine")
        assert [ask(one) for one in (DataConfig(), DataConfig(), other, other)] == [
            0.1,
            0.1,
            0.2,
            0.2,
        ]
        monkeypatch.setattr(job, "VERSION", "another")
        assert ask(other) == 0.3


class Full(io.StringIO):
    """A stream that fails like /dev/full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("words", ["config digits", "config digits --json", "config --help"])
def test_what_takes_no_result_is_one_sentence(
    words: str, coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Full())
    code, _, err = coopt(*words.split())
    assert (code, "cannot be printed (No space left on device)" in err) == (6, True)
    monkeypatch.setattr("sys.stdout", None)  # as Python has it where it was closed
    assert coopt(*words.split())[0] == 0


def test_a_folder_that_was_removed_is_one_sentence(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    (coopt.folder / "gone").mkdir()
    monkeypatch.chdir(coopt.folder / "gone")
    (coopt.folder / "gone").rmdir()
    code, _, err = coopt("config", "digits")
    assert (code, err.startswith("error: the working folder was removed")) == (2, True)
