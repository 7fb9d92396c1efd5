"""Training a student: on an optimized dataset, or by a self-supervised baseline."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from coopt_fl.config.key import student_code
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import locked
from coopt_fl.core.runtime import devices, is_first_process
from coopt_fl.data import Source, open_source
from coopt_fl.optimized.licences import licence_of, of_source, stated, statements
from coopt_fl.optimized.provenance import versions
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.students.checkpoint import CHECKPOINT, read_checkpoint
from coopt_fl.students.curve import Point
from coopt_fl.students.initial import initial_license, student_settings
from coopt_fl.students.loop import Training
from coopt_fl.students.models import check_student
from coopt_fl.students.objectives import find_objective, on_targets
from coopt_fl.students.probe import Judge
from coopt_fl.students.session import devices_for, enough_memory, training_dtype
from coopt_fl.students.trackers import check_tracker, tracked

LOCK = ".lock"

REPLACE = "the checkpoint of this training would replace it: remove it, or give another --out"

SMALLER = "lower student.batch_size or student.image_size, or choose a smaller student.model"

OnEpoch = Callable[[Point, int], None]
"""Called after each epoch with its point of the curve and the total number of epochs."""

Begun = Callable[[int, int], None]
"""Called before the first epoch of a session with the numbers of epochs done and in total."""

Ready = Callable[[dict[str, str]], None]
"""Called with the hardware before a training starts or resumes; may raise to prevent that."""


def train_student(
    dataset: OptimizedDataset | None,
    config: Config,
    out: Path,
    *,
    devices: int | str = "auto",
    ready: Ready | None = None,
    begun: Begun | None = None,
    progress: OnEpoch | None = None,
    watch: Judge | None = None,
    watch_every: int = 1,
) -> "Record":
    """Train a student on the images of ``config.data``, or resume an interrupted training.

    ``out/checkpoint.pt`` is replaced after every epoch. The same call resumes from it, and returns
    at once if the training is finished. In float32 on a CPU with the same number of threads, the
    result equals that of an uninterrupted training bit for bit; in bfloat16 it need not. A
    checkpoint of other settings or of another dataset is replaced.

    Args:
        dataset: The targets; None for an objective without targets, which sees every sample.
        config: ``data``: the images from which ``dataset`` was made; ``student``: model, objective
            and optimization; ``runtime``: determinism on a GPU (the number of CPU threads is set
            outside); ``seed`` of initialisation, shuffling, augmentation and dropout; ``tracker``,
            whose time is not counted.
        out: Folder of the checkpoint.
        devices: See :func:`coopt_fl.students.session.devices_for`.
        ready: Called with the hardware before the first epoch of this session.
        begun: Called before the first epoch of this session, in the first process alone.
        progress: Called after every epoch, in the first process alone.
        watch: Probes the student; its time is not counted.
        watch_every: Epochs between two probes; the last epoch is always probed.

    Raises:
        ConfigError: A setting is unusable, the loss is not finite, or the GPU's memory too small.
        DataError: The images are not those of ``dataset``, or cannot be read.
        OutputError: The checkpoint cannot be written, or another process trains in ``out``.
    """
    source, settings = _prepare(dataset, config, watch)
    record, student = Record(out / CHECKPOINT, dict(settings)), config.student
    if record.before is not None and record.before["resume"] is None:  # it is finished
        if is_first_process():
            with tracked(config.tracker, out, settings, record.curve):
                return record  # the tracker may have failed last time, or be a new one
        return record
    with (
        locked(out / LOCK) if is_first_process() else nullcontext(),
        devices_for(config, devices, find_objective(student.objective).staged) as fabric,
        enough_memory("train the student", SMALLER),
    ):
        record.begin(config.data, student.epochs, fabric.world_size)
        record.meta["license"] = _license(dataset, config)
        if ready is not None:
            ready(record.meta["hardware"])
        with record.timed():
            training = Training(fabric, dataset, source, student, config.data.on_error, config.seed)
            if record.before is not None:
                training.resume(record.before["resume"])
        if begun is not None and fabric.is_global_zero:
            begun(len(record.curve), student.epochs)
        tracker = config.tracker if fabric.is_global_zero else "none"
        with tracked(tracker, out, settings, record.curve) as track:
            for epoch in range(len(record.curve) + 1, student.epochs + 1):
                with record.timed():
                    loss = training.epoch(epoch - 1)
                if fabric.is_global_zero:
                    last = epoch == student.epochs
                    point = Point(epoch, epoch * training.samples, record.seconds, loss)
                    if watch is not None and (last or epoch % watch_every == 0):
                        point = replace(point, **vars(watch(training.student)))
                    record.add(point, training, last=last)
                    track.add(point)
                    if progress is not None:
                        progress(point, student.epochs)
    return record


def _prepare(
    dataset: OptimizedDataset | None, config: Config, watch: Judge | None
) -> tuple[Source, dict[str, Any]]:
    """Check the settings, and open the images to train on.

    This imports the objective, which takes seconds that must not count as training time.

    Returns:
        The images, and the settings that must equal those of a checkpoint to resume from it.
    """
    objective = config.student.objective
    check_student(config.student.model)
    check_tracker(config.tracker)
    find_objective(objective)
    if on_targets(objective) != (dataset is not None):
        needs = "needs" if dataset is None else "knows no targets, so it takes no"
        raise ConfigError(f"student.objective={objective} {needs} optimized dataset")
    source = open_source(config.data)
    if dataset is not None:
        dataset.pair(source)  # raises if the dataset was made from another source
    code, decode = student_code(config), config.data.decode
    return source, {
        **({"plugins": code} if code else {}),  # absent for students without plug-ins
        **({"decode": decode} if decode != "exact" else {}),  # absent in older checkpoints
        "student": student_settings(config.student),
        "dataset_digest": dataset.digest if dataset else None,
        "fingerprint": source.fingerprint,
        "dim": dataset.dim if dataset else 0,
        "seed": config.seed,
        "precision": str(training_dtype(config)).removeprefix("torch."),
        "probe_limit": watch.limit if watch else None,
    }


def _license(dataset: OptimizedDataset | None, config: Config) -> str:
    """Return the licence of a student, derived from its training data and initial weights."""
    parts = statements(dataset.provenance) if dataset else {"the images": of_source(config.data)}
    if config.student.init is not None:
        parts["the initial weights"] = stated(initial_license(config.student.init), owner="")
    return licence_of(parts).short


class Record:
    """A training's checkpoint and the metadata in it.

    Attributes:
        checkpoint: The file for :func:`coopt_fl.students.checkpoint.load_student`.
        before: Content of the checkpoint from which the training resumes; None without one.
        seconds: Time spent inside :meth:`timed`, over all sessions.
        curve: A point for every epoch so far.
        meta: See :class:`coopt_fl.students.checkpoint.LoadedStudent`.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        content = read_checkpoint(path, REPLACE) if path.exists() else None
        same = content is not None and settings.items() <= content["meta"].items()
        self.checkpoint, self.before = path, content if same else None
        self.meta = self.before["meta"] if self.before else settings
        self.curve = [Point(**point) for point in self.meta.get("curve", [])]
        self.seconds = self.curve[-1].seconds if self.curve else 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time that the block takes to ``seconds``."""
        zero = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - zero

    def begin(self, data: DataConfig, epochs: int, processes: int) -> None:
        """Record data, hardware and versions of this session, and the seconds of earlier ones.

        Hardware that changed between sessions is recorded as "A, then B".
        """
        hardware = devices() | {
            "devices in use": str(processes),
            "CPU threads of each": str(torch.get_num_threads()),
        }
        known: dict[str, str] = self.meta.get("hardware", hardware)  # an older one has fewer names
        changed = {name for name in known if known[name].split(", then ")[-1] != hardware[name]}
        self.meta |= {
            "data": asdict(data),
            "epochs": epochs,
            "earlier_seconds": self.seconds,
            "hardware": known | {name: f"{known[name]}, then {hardware[name]}" for name in changed},
            "versions": versions(),
        }

    def add(self, point: Point, training: Training, *, last: bool) -> None:
        """Add a point to the curve, and replace the checkpoint."""
        self.curve.append(point)
        self.meta["curve"] = [asdict(each) for each in self.curve]
        training.save(self.checkpoint, self.meta, last=last)
