"""Training a student on an optimized dataset: regression from image to target."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coopt_fl.data import open_source
from coopt_fl.errors import ConfigError
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.schema import DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.students.checkpoint import read_checkpoint
from coopt_fl.students.loop import Training
from coopt_fl.students.models import check_student
from coopt_fl.students.session import devices_for, enough_memory

CHECKPOINT = "checkpoint.pt"
"""Name of the file in the output folder."""

SMALLER = "lower student.batch_size or student.image_size, or take a smaller student.model"

Progress = Callable[[int, int, float], None]
"""Called after each epoch with the epochs done, the epochs in all, and the epoch's loss."""


@dataclass(frozen=True)
class TrainResult:
    """A trained student.

    Attributes:
        checkpoint: The file for :func:`coopt_fl.students.load_student`.
        epochs: Passes over the dataset.
        seconds: Of loading the images and training, in all sessions together.
        loss_per_epoch: Mean training loss of each epoch.
    """

    checkpoint: Path
    epochs: int
    seconds: float
    loss_per_epoch: list[float]


def train_student(
    dataset: OptimizedDataset,
    data: DataConfig,
    student: StudentConfig,
    runtime: RuntimeConfig,
    out: Path,
    seed: int,
    *,
    devices: int | str = "auto",
    progress: Progress | None = None,
) -> TrainResult:
    """Train a student on ``dataset`` with the images of ``data``, or go on where it stopped.

    After every epoch ``out/checkpoint.pt`` is replaced as a whole. The same call goes on from
    there, bit for bit as if it had never stopped (on a CPU with as many threads), and returns at
    once when all is done; a checkpoint of other settings or another dataset is replaced.

    Args:
        dataset: Rows of ids and targets (N, n).
        data: The source that it was made from.
        student: Model, objective and optimization.
        runtime: Precision and determinism on a GPU. The number of CPU threads is the process's.
        out: Folder of the checkpoint.
        seed: Of the run: initialisation, shuffling, augmentation and dropout derive from it.
        devices: GPUs, or CPU processes without a GPU; "auto": all GPUs, or one CPU process. With
            several, the running command is started again for each but the first, and only the
            first returns.
        progress: Called after every epoch, in the first process alone.

    Raises:
        ConfigError: A setting cannot be used, the loss is no longer finite, or the GPU has too
            little memory.
        DataError: ``data`` is not what ``dataset`` was made from, or cannot be read.
        OutputError: The checkpoint cannot be written.
    """
    check_student(student.model)
    made_with = {
        "student": asdict(student),
        "dataset_digest": dataset.digest,
        "dim": dataset.dim,
        "seed": seed,
        "precision": runtime.precision,
    }
    path = out / CHECKPOINT
    before = _matching(path, made_with)
    if before is not None and before["resume"] is None:
        return _result(path, before["meta"])
    source = open_source(data)
    dataset.pair(source)  # refuses a source that the dataset was not made from
    with devices_for(runtime, devices) as fabric, enough_memory("train the student", SMALLER):
        clock = _Clock(before["meta"]["seconds"] if before else 0.0)
        training = Training(fabric, dataset, source, student, data.on_error, seed)
        if before is not None:
            training.resume(before)
        losses = list(before["meta"]["loss_per_epoch"]) if before else []
        meta = made_with | {"data": asdict(data), "epochs": student.epochs}
        for epoch in range(len(losses), student.epochs):
            losses.append(_finite(training.epoch(epoch), epoch))
            meta |= {"epoch": epoch + 1, "loss_per_epoch": losses, "seconds": clock.seconds()}
            if fabric.is_global_zero:
                training.save(path, meta, last=epoch + 1 == student.epochs)
                if progress is not None:
                    progress(epoch + 1, student.epochs, losses[-1])
    return _result(path, meta)


class _Clock:
    """Seconds since now, on top of those of earlier sessions."""

    def __init__(self, before: float) -> None:
        self._zero = time.perf_counter() - before

    def seconds(self) -> float:
        return time.perf_counter() - self._zero


def _matching(path: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint at ``path`` if it was made with the same settings."""
    if not path.exists():
        return None
    content = read_checkpoint(path)
    same = all(content["meta"].get(key) == value for key, value in made_with.items())
    return content if same else None


def _result(path: Path, meta: dict[str, Any]) -> TrainResult:
    return TrainResult(path, meta["epochs"], meta["seconds"], list(meta["loss_per_epoch"]))


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise ConfigError(
            f"the student's loss is {loss} after epoch {epoch + 1}; set a lower student.lr, or "
            "runtime.precision=float32"
        )
    return loss
