"""Training a student: on an optimized dataset, or by a self-supervised baseline."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coopt_fl.data import open_source
from coopt_fl.errors import ConfigError
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.schema import DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.students.checkpoint import LoadedStudent, read_checkpoint
from coopt_fl.students.curve import Clock, Point
from coopt_fl.students.judge import Judged
from coopt_fl.students.loop import Training
from coopt_fl.students.models import check_student
from coopt_fl.students.objectives import ON_TARGETS, find_objective
from coopt_fl.students.session import devices_for, enough_memory

CHECKPOINT = "checkpoint.pt"
"""Name of the file in the output folder."""

SMALLER = "lower student.batch_size or student.image_size, or take a smaller student.model"

Progress = Callable[[Point, int], None]
"""Called after each epoch with what is known of it, and the epochs in all."""

Watch = Callable[[LoadedStudent], Judged]
"""Judges the student after an epoch."""


@dataclass(frozen=True)
class TrainResult:
    """A trained student.

    Attributes:
        checkpoint: The file for :func:`coopt_fl.students.load_student`.
        curve: A point for every epoch, over all sessions.
    """

    checkpoint: Path
    curve: list[Point]

    @property
    def epochs(self) -> int:
        """Passes over the dataset."""
        return len(self.curve)

    @property
    def seconds(self) -> float:
        """Of loading the images and training, in all sessions together."""
        return self.curve[-1].seconds

    @property
    def loss_per_epoch(self) -> list[float]:
        """Mean training loss of each epoch."""
        return [point.loss for point in self.curve]


def train_student(
    dataset: OptimizedDataset | None,
    data: DataConfig,
    student: StudentConfig,
    runtime: RuntimeConfig,
    out: Path,
    seed: int,
    *,
    devices: int | str = "auto",
    progress: Progress | None = None,
    watch: Watch | None = None,
    watch_every: int = 1,
) -> TrainResult:
    """Train a student with the images of ``data``, or go on where it stopped.

    After every epoch ``out/checkpoint.pt`` is replaced as a whole. The same call goes on from
    there, bit for bit as if it had never stopped (on a CPU with as many threads), and returns at
    once when all is done; a checkpoint of other settings or another dataset is replaced.

    Args:
        dataset: Rows of ids and targets (N, n); None for an objective without targets, which
            sees every sample of ``data``.
        data: The images, those that ``dataset`` was made from.
        student: Model, objective and optimization.
        runtime: Precision and determinism on a GPU. The number of CPU threads is the process's.
        out: Folder of the checkpoint.
        seed: Of the run: initialisation, shuffling, augmentation and dropout derive from it.
        devices: GPUs, or CPU processes without a GPU; "auto": all GPUs, or one CPU process. With
            several, the running command is started again for each but the first, and only the
            first returns.
        progress: Called after every epoch, in the first process alone.
        watch: Judges the student after every ``watch_every`` epochs and after the last one; its
            time does not count.
        watch_every: See ``watch``.

    Raises:
        ConfigError: A setting cannot be used, the loss is no longer finite, or the GPU has too
            little memory.
        DataError: ``data`` is not what ``dataset`` was made from, or cannot be read.
        OutputError: The checkpoint cannot be written.
    """
    check_student(student.model)
    staged = find_objective(student.objective).staged  # imports before the clock runs
    if (student.objective in ON_TARGETS) != (dataset is not None):
        needs = "needs" if dataset is None else "knows no targets, so it takes no"
        raise ConfigError(f"student.objective={student.objective} {needs} optimized dataset")
    source = open_source(data)
    made_with = {
        "student": asdict(student),
        "dataset_digest": dataset.digest if dataset else None,
        "fingerprint": source.fingerprint,
        "dim": dataset.dim if dataset else 0,
        "seed": seed,
        "precision": runtime.precision,
    }
    path = out / CHECKPOINT
    before = _matching(path, made_with)
    if before is not None and before["resume"] is None:
        return TrainResult(path, _curve(before))
    if dataset is not None:
        dataset.pair(source)  # refuses a source that the dataset was not made from
    with (
        devices_for(runtime, devices, staged=staged) as fabric,
        enough_memory("train the student", SMALLER),
    ):
        curve = _curve(before)
        clock = Clock(curve[-1].seconds if curve else 0.0)
        with clock.running():
            training = Training(fabric, dataset, source, student, data.on_error, seed)
            if before is not None:
                training.resume(before)
        meta = made_with | {"data": asdict(data), "epochs": student.epochs}
        for epoch in range(len(curve), student.epochs):
            with clock.running():
                loss = _finite(training.epoch(epoch), epoch)
            if fabric.is_global_zero:
                last = epoch + 1 == student.epochs
                turn = watch is not None and (last or (epoch + 1) % watch_every == 0)
                judged = watch(training.student) if watch and turn else Judged(None, None)
                seen = (epoch + 1) * training.samples
                curve.append(
                    Point(epoch + 1, seen, clock.seconds, loss, judged.accuracy, judged.spread)
                )
                training.save(path, meta | {"curve": [asdict(p) for p in curve]}, last=last)
                if progress is not None:
                    progress(curve[-1], student.epochs)
    return TrainResult(path, curve)


def _matching(path: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint at ``path`` if it was made with the same settings."""
    if not path.exists():
        return None
    content = read_checkpoint(path)
    same = all(content["meta"].get(key) == value for key, value in made_with.items())
    return content if same else None


def _curve(checkpoint: dict[str, Any] | None) -> list[Point]:
    return [Point(**point) for point in checkpoint["meta"]["curve"]] if checkpoint else []


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise ConfigError(
            f"the student's loss is {loss} after epoch {epoch + 1}; set a lower student.lr, or "
            "runtime.precision=float32"
        )
    return loss
