"""``coopt pretrain``: several seeds, files, cost of the targets, speed-up, and refusals."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coopt_fl.api import centralized
from coopt_fl.config.load import load_config
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress
from coopt_fl.optimized.preparation import preparation
from coopt_fl.optimized.provenance import versions
from coopt_fl.students.checkpoint import load_student
from coopt_fl.students.curve import mean_and_spread
from coopt_fl.students.pretrain import compare, pretrain
from tests.unit.command import Coopt

CHANGES = (
    "data.source=synthetic data.limit=160 student.model=convnet:4 student.epochs=3 "
    "student.batch_size=32 shared.size=40 targets.dim=8"
)


def config_of(*changes: str) -> Config:
    return load_config("digits", [*CHANGES.split(), *changes])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def student_of(result: dict[str, Any]) -> dict[str, Any]:
    return load_student(Path(result["checkpoint"])).model.state_dict()


def test_each_seed_has_its_own_student_curve_and_file(tmp_path: Path) -> None:
    config = config_of("student.objective=simclr", "seed=3")
    found = pretrain(config, None, tmp_path, Progress(), seeds=2, watch_every=2, count=1)
    assert [one["seed"] for one in found["seeds"]] == [3, 4]
    for one in found["seeds"]:
        assert json.loads((tmp_path / f"seed-{one['seed']}" / "pretrain.json").read_text()) == one
        assert [point["epoch"] for point in one["curve"]] == [1, 2, 3]
        assert [point["samples"] for point in one["curve"]] == [160, 320, 480]
        assert [point["accuracy"] is None for point in one["curve"]] == [True, False, False]
        seconds = [point["seconds"] for point in one["curve"]]
        assert 0 < seconds[0] < seconds[1] < seconds[2] == one["seconds"]
        assert one["config"]["student"]["objective"] == "simclr"
        assert {"torch", "python"} <= {name.lower() for name in one["versions"]}
        assert (one["preparation"], one["dataset_digest"]) == (None, None)
    accuracies = [one["accuracy"] for one in found["seeds"]]
    assert found["accuracy"] == mean_and_spread(accuracies)
    first, second = map(student_of, found["seeds"])
    assert any(not torch.equal(first[key], second[key]) for key in first)


class StoppedError(Exception):
    pass


class Stopping(Progress):
    """Simulates the end of the process after two epochs of the second seed."""

    def show(self, name: str, done: int, *rest: Any, **more: Any) -> None:
        if (name, done) == ("seed 1", 2):
            raise StoppedError


@pytest.mark.whole
@pytest.mark.parametrize("objective", ["byol", "moco", "swav"])
def test_a_pretraining_that_was_stopped_goes_on_to_the_same_result(
    tmp_path: Path, objective: str
) -> None:
    config = config_of(f"student.objective={objective}", "student.model=convnet:2")
    whole = pretrain(config, None, tmp_path / "whole", Progress(), seeds=2, count=1)
    with pytest.raises(StoppedError):
        pretrain(config, None, tmp_path / "stopped", Stopping(), seeds=2, count=1)
    first = (tmp_path / "stopped" / "seed-0" / "pretrain.json").read_text()
    again = pretrain(config, None, tmp_path / "stopped", Progress(), seeds=2, count=1)
    assert (tmp_path / "stopped" / "seed-0" / "pretrain.json").read_text() == first
    for one, other in zip(whole["seeds"], again["seeds"], strict=True):
        assert one["accuracy"] == other["accuracy"]
        assert [p["loss"] for p in one["curve"]] == [p["loss"] for p in other["curve"]]
        weights, same = student_of(one), student_of(other)
        assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.mark.whole
def test_a_student_is_probed_again_where_the_limit_of_the_probe_is_another(tmp_path: Path) -> None:
    few, many = (
        config_of("student.objective=simclr", "student.model=convnet:2", f"probe.limit={limit}")
        for limit in (20, 10_000)
    )
    with pytest.raises(StoppedError):
        pretrain(few, None, tmp_path / "a", Stopping(), seeds=2, count=1)
    again = pretrain(many, None, tmp_path / "a", Progress(), seeds=2, count=1)
    fresh = pretrain(many, None, tmp_path / "b", Progress(), seeds=2, count=1)
    for one, other in zip(again["seeds"], fresh["seeds"], strict=True):
        probed = [[point["accuracy"] for point in each["curve"]] for each in (one, other)]
        assert probed[0] == probed[1]
        assert one["config"] == other["config"]


@pytest.mark.whole
def test_hardware_and_versions_are_those_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("student.objective=simclr", "student.model=convnet:2")
    with monkeypatch.context() as older, pytest.raises(StoppedError):
        older.setattr("coopt_fl.students.train.devices", lambda: {"CPU cores": "2"})
        pretrain(config, None, tmp_path, Stopping(), seeds=2, count=1)
    torch.set_num_threads(2)
    monkeypatch.setattr("coopt_fl.students.train.versions", lambda: {"torch": "99"})
    first, second = pretrain(config, None, tmp_path, Progress(), seeds=2, count=1)["seeds"]
    assert first["hardware"]["devices in use"] == first["hardware"]["CPU threads of each"] == "1"
    assert first["versions"] == versions()
    assert second["hardware"]["CPU threads of each"] == "1, then 2"
    assert "CPU" not in second["hardware"], "as it is not known where the training began"
    assert second["versions"] == {"torch": "99"}


def test_only_the_first_process_probes_and_writes_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("student.objective=simclr", "student.model=convnet:2")
    pretrain(config, None, tmp_path, Progress(), count=1)
    file = tmp_path / "seed-0" / "pretrain.json"
    file.unlink()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("coopt_fl.students.pretrain.random_student", None)
    with pytest.raises(StoppedError):
        pretrain(config, None, tmp_path, Stopping(), seeds=2, count=1)
    assert not file.exists()


@pytest.fixture
def optimized(tmp_path: Path) -> Path:
    config = load_config(
        "digits",
        [*CHANGES.split(), "participants.0.prior=trivial:24", "student.epochs=1"],
    )
    centralized(config, prior="alpha", out=tmp_path / "run", progress=None)
    return tmp_path / "run"


def test_ours_needs_targets_and_counts_what_they_cost(tmp_path: Path, optimized: Path) -> None:
    found = pretrain(config_of(), optimized, tmp_path / "ours", Progress(), count=1)
    (one,) = found["seeds"]
    known = json.loads((optimized / "summary.json").read_text())
    assert one["dataset_digest"] == known["dataset"]["digest"]
    cost = one["preparation"]
    spent = known["seconds"]
    parts = spent["represent"] + spent["align"] + spent["fuse"]
    assert cost["sum"] == pytest.approx(
        parts + max(spent["optimize"], known["participants"][0]["seconds"])
    )
    assert cost["sum"] == cost["max"] == pytest.approx(sum(cost["parts"].values()))
    assert cost["alone"]


def test_two_participants_cost_the_sum_or_the_slowest(tmp_path: Path) -> None:
    summary = {
        "participants": [{"seconds": 10.0}, {"seconds": 4.0}],
        "seconds": {"represent": 3.0, "align": 1.0, "optimize": 16.0, "fuse": 0.5, "student": 99.0},
        "config": {"simulation": {"actors": 1}},
    }
    (tmp_path / "dataset").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    cost = preparation(tmp_path / "dataset")
    assert cost
    assert cost.parts["transport"] == 2.0  # what the phase took beyond the computing
    assert (cost.sum, cost.max) == (20.5, 16.5)
    assert cost.alone
    summary["config"] = {"simulation": {"actors": None}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    shared = preparation(tmp_path / "dataset")
    assert shared and not shared.alone


def test_a_student_and_what_it_is_compared_with_are_probed_on_as_many_images(
    tmp_path: Path, optimized: Path
) -> None:
    limited = ("probe.limit=20", "participants.0.prior=trivial:24", "student.epochs=1")
    centralized(config_of(*limited), prior="alpha", out=optimized, progress=None)
    known = json.loads((optimized / "summary.json").read_text())
    ours = pretrain(config_of(*limited), optimized, tmp_path / "ours", Progress(), count=1)
    (one,) = ours["seeds"]
    assert known["student"]["probe_accuracy"] == one["accuracy"]
    assert known["comparison"]["random_init"] == one["random_accuracy"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"participants": []}'])
def test_a_damaged_summary_beside_the_dataset_is_refused(optimized: Path, text: str) -> None:
    (optimized / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match=r"summary\.json .*run the command that wrote it again"):
        preparation(optimized)


def test_nobody_knows_what_a_dataset_without_its_run_cost(tmp_path: Path, optimized: Path) -> None:
    moved = tmp_path / "moved"
    (optimized / "dataset").rename(moved)
    assert preparation(moved) is None


def result_of(seconds: float, accuracies: list[float], made: float = 0.0, **other: Any) -> Any:
    """Return the result of a training with the given seconds per epoch."""
    curve = [
        {"epoch": k, "samples": k, "seconds": k * seconds, "loss": 1.0, "accuracy": accuracy}
        for k, accuracy in enumerate(accuracies, 1)
    ]
    student = {"batch_size": 32, "image_size": other.pop("image_size", None)}
    runtime = {"precision": "float32"}
    return {
        "objective": "byol",
        "model": "resnet18",
        "hardware": {"GPUs": "none", "CPU": "Xeon"},
        "config": {
            "data": {"source": "digits"},
            "student": student,
            "runtime": runtime,
            "probe": {"limit": other.pop("probe", 300)},
        },
        "curve": curve,
        "accuracy": accuracies[-1],
        "preparation": {"sum": made, "max": made / 2, "parts": {}, "alone": True} if made else None,
    } | other


def test_speed_up_is_stated_for_equal_epochs_and_to_the_baselines_accuracy() -> None:
    baseline = result_of(3.0, [0.3, 0.4, 0.5, 0.6])  # 12 s to 0.6
    ours = result_of(1.0, [0.5, 0.7, 0.8, 0.8], made=2.0)  # 2 + 4 s; 0.6 after 2 + 2 s
    found = compare([ours], [baseline])
    assert found["sum"]["equal_epochs"]["mean"] == pytest.approx(12 / 6)
    assert found["sum"]["to_accuracy"]["mean"] == pytest.approx(12 / 4)
    assert found["max"]["equal_epochs"]["mean"] == pytest.approx(12 / 5)
    assert found["max"]["to_accuracy"]["mean"] == pytest.approx(12 / 3)


def test_equal_epochs_are_those_that_both_have() -> None:
    """Preparation counts in full, whatever the number of epochs of either."""
    baseline, ours = result_of(3.0, [0.5] * 4), result_of(1.0, [0.4] * 8, made=2.0)
    assert compare([ours], [baseline])["sum"]["equal_epochs"]["mean"] == pytest.approx(12 / 6)
    longer = result_of(3.0, [0.5] * 80)
    assert compare([ours], [longer])["sum"]["equal_epochs"]["mean"] == pytest.approx(24 / 10)


def test_a_seed_that_never_gets_there_does_not_count_towards_the_time_to_accuracy() -> None:
    baseline = [result_of(3.0, [0.4, 0.6]), result_of(3.0, [0.4, 0.6])]
    ours = [result_of(1.0, [0.5, 0.7]), result_of(1.0, [0.5, 0.5])]
    found = compare(ours, baseline)["sum"]
    assert (found["equal_epochs"]["n"], found["to_accuracy"]["n"]) == (2, 1)
    assert compare(ours[1:], baseline[1:])["sum"]["to_accuracy"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vit_b_16"},
        {"image_size": 16},
        {"probe": 50},
        {"hardware": {"GPUs": "H100"}},
        {"hardware": {"GPUs": "none", "CPU": "Xeon", "devices in use": "2"}},
        {"hardware": {"GPUs": "none", "CPU": "EPYC"}},
    ],
)
def test_what_ran_elsewhere_or_with_another_model_is_not_compared(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        compare([result_of(1.0, [0.5])], [result_of(1.0, [0.5], **change)])


def test_a_baseline_of_an_older_version_does_not_tell_its_cpu() -> None:
    older = result_of(1.0, [0.5], hardware={"GPUs": "none"})
    assert compare([result_of(1.0, [0.5])], [older])["sum"]["equal_epochs"]["n"] == 1
    assert compare([older], [result_of(1.0, [0.5])])["sum"]["equal_epochs"]["n"] == 1


def test_mean_and_spread() -> None:
    assert mean_and_spread([1.0, 2.0, 3.0, None]) == {"mean": 2.0, "std": 1.0, "n": 3}
    assert mean_and_spread([5.0]) == {"mean": 5.0, "std": 0.0, "n": 1}
    assert mean_and_spread([None]) is None


SMALLEST = ("pretrain", "digits", *CHANGES.split(), "student.epochs=1", "--devices", "1")


def test_the_command_prints_a_table_or_json_and_says_how_much_faster_it_is(
    coopt: Coopt, tmp_path: Path, optimized: Path
) -> None:
    baseline, ours = tmp_path / "simclr", tmp_path / "ours"
    code, out, _ = coopt(*SMALLEST, "--objective", "simclr", "--seeds", "2", "--out", str(baseline))
    assert code == 0
    assert "simclr, convnet:4" in out
    assert "±" in out
    folders = ("--dataset", str(optimized), "--out", str(ours), "--against", str(baseline))
    said = (*SMALLEST, *folders)
    code, out, err = coopt(*said, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["speed_up"]["objective"] == "simclr"
    assert found["speed_up"]["max"]["equal_epochs"]["mean"] > 0
    lines = " ".join(err.split())
    assert "times as fast for equal epochs" in lines
    assert "to its final accuracy" in lines
    assert coopt(*said, "--json")[1] == out  # finished: the same, at once


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda known: "{", "is damaged"),
        (lambda known: '{"objective": "byol"}', "is not what this version writes"),
        (lambda known: json.dumps(known | {"curve": []}), "is not what this version writes"),
        (lambda known: json.dumps(known | {"model": "vit_b_16"}), "of another student.model"),
        (
            lambda known: json.dumps(known | {"hardware": known["hardware"] | {"GPUs": "H9"}}),
            "of another hardware (GPUs)",
        ),
    ],
)
def test_a_baseline_that_cannot_be_compared_with_is_refused_before_the_training(
    coopt: Coopt, tmp_path: Path, damage: Any, says: str
) -> None:
    said = (*SMALLEST, "--objective", "simclr", "student.model=convnet:2", "--out")
    assert coopt(*said, str(tmp_path / "one"))[0] == 0
    file = tmp_path / "one" / "seed-0" / "pretrain.json"
    file.write_text(damage(json.loads(file.read_text())))
    code, _, err = coopt(*said, str(tmp_path / "two"), "--against", str(tmp_path / "one"))
    assert (code, "Traceback" in err) == (2, False)
    assert says in err
    assert not list(tmp_path.glob("two/*/[!.]*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--objective", "simlcr"), 2, "did you mean simclr"),
        (("--objective", "regression"), 2, "give --dataset DIR"),
        (("--objective", "byol", "--dataset", "run"), 2, "leave out --dataset"),
        (("--objective", "rela", "--dataset", "nowhere"), 2, "no directory nowhere"),
        (("--objective", "byol", "student.batch_size=1"), 2, "at least 2 samples"),
        (("--objective", "byol", "--against", "nowhere"), 2, "nowhere/seed-0/pretrain.json"),
        (("--objective", "byol", "--seeds", "0"), 2, "--seeds"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(
    coopt: Coopt, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    got, _, err = coopt(*SMALLEST, *arguments, "--out", str(tmp_path / "out"))
    assert (got, "Traceback" in err) == (code, False)
    assert says in " ".join(err.replace("│", " ").split())


def test_without_lightly_the_error_says_what_to_install(
    coopt: Coopt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("coopt_fl.students.objectives.")]:
        if name.rpartition(".")[2] in ("contrastive", "teachers"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    code, _, err = coopt(*SMALLEST, "--objective", "simclr", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "pip install 'lightly>=" in err
