"""Training a student: on an optimized dataset, or by a self-supervised baseline."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from coopt_fl.config.schema import DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import locked
from coopt_fl.core.runtime import is_first_process
from coopt_fl.data import open_source
from coopt_fl.ops import doctor
from coopt_fl.optimized.provenance import versions
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.students.checkpoint import read_checkpoint
from coopt_fl.students.curve import Clock, Point
from coopt_fl.students.loop import Training
from coopt_fl.students.models import check_student
from coopt_fl.students.objectives import ON_TARGETS, find_objective
from coopt_fl.students.probe import Judge, Judged
from coopt_fl.students.session import devices_for, enough_memory

CHECKPOINT = "checkpoint.pt"
"""Name of the file in the output folder."""

LOCK = ".lock"

SMALLER = "lower student.batch_size or student.image_size, or take a smaller student.model"

OnEpoch = Callable[[Point, int], None]
"""Called after each epoch with what is known of it, and the epochs in all."""

Ready = Callable[[dict[str, str]], None]
"""Called with the hardware before a training begins or goes on; it may raise to prevent that."""


@dataclass(frozen=True)
class TrainResult:
    """A trained student.

    Attributes:
        checkpoint: The file for :func:`coopt_fl.students.load_student`.
        curve: A point for every epoch, over all sessions.
        hardware: What it was trained on, with the number of devices and of CPU threads.
        versions: What it was trained with.
    """

    checkpoint: Path
    curve: list[Point]
    hardware: dict[str, str]
    versions: dict[str, str]

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
    ready: Ready | None = None,
    progress: OnEpoch | None = None,
    watch: Judge | None = None,
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
        ready: Called with the hardware before the first epoch of this session.
        progress: Called after every epoch, in the first process alone.
        watch: Judges the student after every ``watch_every`` epochs and after the last one; its
            time does not count.
        watch_every: See ``watch``.

    Raises:
        ConfigError: A setting cannot be used, the loss is no longer finite, or the GPU has too
            little memory.
        DataError: ``data`` is not what ``dataset`` was made from, or cannot be read.
        OutputError: The checkpoint cannot be written, or another process trains in ``out``.
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
        "probe_limit": watch.limit if watch else None,
    }
    path = out / CHECKPOINT
    before = _matching(path, made_with)
    if before is not None and before["resume"] is None:
        return _result(path, before["meta"])
    if dataset is not None:
        dataset.pair(source)  # refuses a source that the dataset was not made from
    with (
        locked(out / LOCK) if is_first_process() else nullcontext(),
        devices_for(runtime, devices, staged=staged) as fabric,
        enough_memory("train the student", SMALLER),
    ):
        hardware = _hardware(fabric.world_size, before)
        if ready is not None:
            ready(hardware)
        curve = _curve(before["meta"]) if before else []
        clock = Clock(curve[-1].seconds if curve else 0.0)
        with clock.running():
            training = Training(fabric, dataset, source, student, data.on_error, seed)
            if before is not None:
                training.resume(before)
        meta: dict[str, Any] = made_with | {
            "data": asdict(data),
            "epochs": student.epochs,
            "hardware": hardware,
            "versions": versions(),
        }
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
                meta["curve"] = [asdict(point) for point in curve]
                training.save(path, meta, last=last)
                if progress is not None:
                    progress(curve[-1], student.epochs)
    return _result(path, meta)


def _matching(path: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint at ``path`` if it was made with the same settings."""
    if not path.exists():
        return None
    content = read_checkpoint(path)
    meta = content["meta"]
    same = all(key in meta and meta[key] == value for key, value in made_with.items())
    return content if same else None


def _result(path: Path, meta: dict[str, Any]) -> TrainResult:
    return TrainResult(path, _curve(meta), meta["hardware"], meta["versions"])


def _curve(meta: dict[str, Any]) -> list[Point]:
    return [Point(**point) for point in meta["curve"]]


def _hardware(processes: int, before: dict[str, Any] | None) -> dict[str, str]:
    """Return what a training runs on; what changed after an interruption is "A, then B"."""
    now = doctor.devices() | {
        "devices in use": str(processes),
        "CPU threads of each": str(torch.get_num_threads()),
    }
    if before is None:
        return now
    known: dict[str, str] = before["meta"]["hardware"]
    changed = {name for name in now if known[name].split(", then ")[-1] != now[name]}
    return known | {name: f"{known[name]}, then {now[name]}" for name in changed}


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise ConfigError(
            f"the student's loss is {loss} after epoch {epoch + 1}; set a lower student.lr, or "
            "runtime.precision=float32"
        )
    return loss
