"""Experiment trackers that log the learning curve besides the checkpoint: the key ``tracker``.

When a training resumes, all its epochs are logged again, because the tracker's files of an earlier
session may lack an epoch. A tracker never changes a result.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError, CooptError, OutputError
from coopt_fl.core.extras import install_hint
from coopt_fl.core.files import make_folder, write_json
from coopt_fl.registry import PARTS
from coopt_fl.students.curve import Point

FOLDER = "tracking"
"""Folder beside a checkpoint into which trackers write their files."""

EXPERIMENT = "coopt-fl"
"""The mlflow experiment, unless MLFLOW_EXPERIMENT_NAME names another."""

MLFLOW = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Environment of mlflow: allows it to write files, and turns its telemetry off."""


class Tracker(Protocol):
    """Logs a training, in the first process alone.

    A tracker is created by calling its class with the folder for its files and the settings of
    the training, by dotted names.
    """

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics after an epoch, counted from 1: ``samples``, ``seconds``, ``loss``, ...

        ``accuracy`` and ``spread`` are there only after epochs that were probed.
        """

    def close(self) -> None:
        """Finish writing: the training ended, or was stopped."""


def check_tracker(name: str) -> None:
    """Raise ConfigError unless the tracker exists and its package is installed."""
    needed = PARTS.find("tracker", name).fact("needs")
    if needed and find_spec(needed) is None:
        raise ConfigError(f"tracker={name} needs {needed}: {install_hint('tracking')}")


class Track:
    """Passes the points of a learning curve on to a tracker."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker

    def add(self, point: Point) -> None:
        """Log an epoch that the checkpoint already has."""
        metrics = {key: value for key, value in vars(point).items() if value is not None}
        with _as_output_error(self.name):
            self.tracker.log(metrics.pop("epoch"), metrics)


@contextmanager
def tracked(
    name: str, out: Path, settings: Mapping[str, Any], curve: Sequence[Point]
) -> Iterator[Track]:
    """Yield a :class:`Track` for the tracker ``name``, after logging the points of ``curve``.

    Args:
        name: the tracker.
        out: the folder of the checkpoint.
        settings: the settings of the training, which may be nested.
        curve: the points of earlier sessions.

    Raises:
        OutputError: the tracker failed; the checkpoint has all finished epochs.
    """
    with _as_output_error(name):
        made: Tracker = PARTS.find("tracker", name).call(out / FOLDER, _flat(settings))
    track = Track(name, made)
    try:
        for point in curve:
            track.add(point)
        yield track
    finally:
        with _as_output_error(name):
            made.close()


@contextmanager
def _as_output_error(name: str) -> Iterator[None]:
    """Turn any error of the tracker ``name`` into an OutputError with a remedy."""
    try:
        yield
    except CooptError:
        raise
    except Exception as error:  # trackers write files or talk to servers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(
            f"tracker={name} failed ({reason}): the checkpoint has all finished epochs; fix the "
            "tracker or set tracker=none, then run the same command again"
        ) from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inside = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return flat


class Nothing:
    """Logs nothing."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        pass

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CSV:
    """Writes ``tracking/csv/metrics.csv``, by Lightning Fabric."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        _empty(folder / "csv")
        self._logger = CSVLogger(folder, name=None, version="csv", flush_logs_every_n_steps=1)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a row, and write the file."""
        self._logger.log_metrics(dict(metrics), epoch)

    def close(self) -> None:
        """Do nothing: every row is written."""


class TensorBoard:
    """Writes event files to ``tracking/tensorboard``, by Lightning Fabric."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        _empty(folder / "tensorboard")
        self._logger = TensorBoardLogger(folder, name=None, version="tensorboard")
        self._logger.log_hyperparams(dict(settings))

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve, and write it."""
        self._logger.log_metrics(dict(metrics), epoch)
        self._logger.experiment.flush()

    def close(self) -> None:
        """Close the file."""
        self._logger.finalize("success")


class MLflow:
    """Logs to mlflow: at MLFLOW_TRACKING_URI, or else in files under ``tracking/mlflow``.

    A training is one mlflow run, whose id and settings are kept in ``tracking/mlflow.json``.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        make_folder(folder)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").resolve().as_uri()
        for name, value in MLFLOW.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        self._run = self._run_of(folder / "mlflow.json", settings)
        self._known = {one.step for one in self._client.get_metric_history(self._run, "loss")}

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch unless the run has it; the loss is last, so that it marks the epoch done."""
        if epoch not in self._known:
            for name in sorted(metrics, key="loss".__eq__):
                self._client.log_metric(self._run, name, metrics[name], step=epoch)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)

    def _run_of(self, record: Path, settings: Mapping[str, Any]) -> str:
        """Return the id of the run in ``record`` if its settings are the same, else a new run's."""
        plain = {key: str(value) for key, value in settings.items()}
        if record.is_file():
            known = typed.read(record, dict[str, Any], OutputError, f"delete {record}")
            if known.get("settings") == plain:
                self._client.update_run(str(known["run"]), status="RUNNING")
                return str(known["run"])
        made: str = self._client.create_run(self._experiment()).info.run_id
        for key, value in plain.items():
            self._client.log_param(made, key, value)
        write_json(record, {"run": made, "settings": plain})
        return made

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


def _empty(folder: Path) -> None:
    """Remove what an earlier session of the training wrote."""
    shutil.rmtree(folder, ignore_errors=True)
