"""Files of trackers, read by the usual readers, also after an interrupted training."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import coopt_fl
from coopt_fl.config.schema import Config, DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.registry import PARTS
from coopt_fl.students import trackers
from coopt_fl.students.train import Record, train_student

Train = Callable[..., Record]
Curve = dict[int, float]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def train(
    planted: OptimizedDataset, data: DataConfig, student: StudentConfig, tmp_path: Path
) -> Train:
    student.model, student.epochs = "convnet:2", 3

    def train(tracker: str, stop: int = 0, **changes: Any) -> Record:
        for key, value in changes.items():
            setattr(student, key, value)

        def stopping(point: Any, epochs: int) -> None:
            if point.epoch == stop:
                raise KeyboardInterrupt

        config = Config(data=data, student=student, tracker=tracker)
        return train_student(planted, config, tmp_path, progress=stopping)

    return train


def read_csv(out: Path) -> Curve:
    with (out / "tracking" / "csv" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def read_tensorboard(out: Path) -> Curve:
    events = EventAccumulator(str(out / "tracking" / "tensorboard"))
    events.Reload()
    found = [(one.step, one.value) for one in events.Scalars("loss")]
    assert len(found) == len(dict(found)), "each epoch once"
    return dict(found)


def client(out: Path) -> Any:
    from mlflow import MlflowClient  # the import takes more than a second

    return MlflowClient(tracking_uri=(out / "tracking" / "mlflow").as_uri())


def runs(out: Path) -> list[Any]:
    found = client(out)
    experiment = found.get_experiment_by_name("coopt-fl")
    return list(found.search_runs([experiment.experiment_id]))


def read_mlflow(out: Path) -> Curve:
    (run,) = runs(out)
    history = client(out).get_metric_history(run.info.run_id, "loss")
    found = [(one.step, one.value) for one in history]
    assert len(found) == len(dict(found)), "each epoch once"
    return dict(found)


READERS = {"csv": read_csv, "tensorboard": read_tensorboard, "mlflow": read_mlflow}


def curve_of(record: Record) -> Any:
    return pytest.approx({one.epoch: one.loss for one in record.curve}, rel=1e-6)


@pytest.mark.parametrize("tracker", READERS)
def test_the_curve_is_that_of_the_checkpoint(tracker: str, train: Train, tmp_path: Path) -> None:
    done = train(tracker)
    assert READERS[tracker](tmp_path) == curve_of(done)


@pytest.mark.parametrize("tracker", READERS)
def test_a_training_that_was_stopped_has_one_curve(
    tracker: str, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tracker, stop=2)
    assert sorted(READERS[tracker](tmp_path)) == [1, 2]
    whole = train(tracker)
    assert len(whole.curve) == 3 and READERS[tracker](tmp_path) == curve_of(whole)


@pytest.mark.parametrize("tracker", ["csv", "tensorboard"])
def test_another_training_in_its_place_replaces_the_curve(
    tracker: str, train: Train, tmp_path: Path
) -> None:
    train(tracker)
    other = train(tracker, lr=3e-3, epochs=2)
    assert READERS[tracker](tmp_path) == curve_of(other)


def test_another_training_is_another_run_of_mlflow_with_its_own_settings(
    train: Train, tmp_path: Path
) -> None:
    train("mlflow", epochs=1)
    train("mlflow", epochs=1, lr=3e-3)
    assert {run.data.params["student.lr"] for run in runs(tmp_path)} == {"0.01", "0.003"}
    assert {run.info.status for run in runs(tmp_path)} == {"FINISHED"}


def test_a_finished_training_can_be_tracked_later(train: Train, tmp_path: Path) -> None:
    done = train("none")
    assert not (tmp_path / "tracking").exists()
    train("csv")
    assert read_csv(tmp_path) == curve_of(done)


@pytest.fixture
def failing() -> Iterator[None]:
    before = dict(PARTS._parts)

    @coopt_fl.register.tracker("failing")
    class Failing(trackers.Nothing):
        def log(self, epoch: int, metrics: Any) -> None:
            if epoch == 2:
                raise ConnectionError("the server is gone")

    yield
    PARTS._parts = before


def test_a_tracker_that_fails_costs_no_epoch(failing: None, train: Train) -> None:
    with pytest.raises(OutputError, match=r"tracker=failing failed \(the server is gone\)"):
        train("failing")
    seen = train("none")
    assert len(seen.curve) == 3


def test_a_package_that_is_missing_is_named_before_the_training(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tracker=tensorboard needs tensorboard: pip install"):
        train("tensorboard")
    assert not list(tmp_path.iterdir())
