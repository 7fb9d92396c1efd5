"""The training loop of a student: what it holds on a device, and one pass over the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coopt_fl.data import Source
from coopt_fl.errors import ConfigError
from coopt_fl.optimized.reader import OptimizedDataset
from coopt_fl.schema import StudentConfig
from coopt_fl.seeding import derive_seed
from coopt_fl.students.augment import augment, draw
from coopt_fl.students.checkpoint import save_student
from coopt_fl.students.images import RESIDENT_BYTES, Squares, open_squares, own_size
from coopt_fl.students.models import Student, build_student
from coopt_fl.students.normalise import measure, measured_ids
from coopt_fl.students.objectives import OBJECTIVES
from coopt_fl.students.optimizer import make_optimizer, rate_at, set_rate

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Training:
    """A student with its head and optimizer on one device, and the data that it sees.

    Everything random comes from the seed and the number of the epoch, so nothing but the weights
    and the optimizer must be kept to go on after an interruption.
    """

    def __init__(
        self,
        fabric: Fabric,
        dataset: OptimizedDataset,
        source: Source,
        config: StudentConfig,
        on_error: str,
        seed: int,
    ) -> None:
        self._fabric, self._config, self._seed = fabric, config, seed
        size = config.image_size or own_size(source)
        self._squares = open_squares(source, dataset.ids, size, fabric.device, on_error)
        self._targets = _lookup(dataset.targets, fabric.device)
        self._samples = len(dataset.ids)
        self._share = _share(config.batch_size, len(self._squares.rows), fabric.world_size)
        self._steps = len(self._squares.rows) // (self._share * fabric.world_size)
        self._objective = OBJECTIVES[config.objective]
        self._normalisation = measure(self._squares, _measured(self._squares, dataset.ids, source))
        self._student = initial_student(config, size, seed)
        self._head = _head(self._student.width, dataset.dim, derive_seed(seed, "head"))
        model = nn.Sequential(self._student, self._head).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config.lr, config.weight_decay)
        self._model, self._optimizer = fabric.setup(model, optimizer)

    def save(self, path: Path, meta: dict[str, Any], *, last: bool) -> None:
        """Write a checkpoint; all but the last one hold what :meth:`resume` needs."""
        resume = {"head": self._head.state_dict(), "optimizer": self._optimizer.state_dict()}
        save_student(path, self._student, self._normalisation, meta, None if last else resume)

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the content of a checkpoint that was not the last."""
        self._student.load_state_dict(checkpoint["weights"])
        self._head.load_state_dict(checkpoint["resume"]["head"])
        self._optimizer.load_state_dict(checkpoint["resume"]["optimizer"])

    def epoch(self, number: int) -> float:
        """Train on every sample once, counting epochs from 0, and return the mean loss.

        What is left over after the last full batch waits for another epoch's shuffle.
        """
        config, device = self._config, self._fabric.device
        draws = draw(self._samples, derive_seed(self._seed, "augment", number)).to(device)
        total, steps = torch.zeros((), device=device), self._steps
        with _seeded(device, derive_seed(self._seed, "dropout", number, self._fabric.global_rank)):
            parts = self._squares.batches(self._order(number), self._share)
            for step, (images, rows) in enumerate(parts, start=number * steps):
                set_rate(self._optimizer, rate_at(step, config.epochs * steps, config.lr))
                seen = augment(self._normalisation(images), draws[rows], config.augment)
                loss = self._objective(self._model(seen), self._targets(rows))
                self._fabric.backward(loss)
                self._optimizer.step()
                self._optimizer.zero_grad()
                total += loss.detach()
        mean = self._fabric.all_reduce(total / steps, reduce_op="mean")
        return float(cast(Tensor, mean))

    def _order(self, number: int) -> Tensor:
        """Return this device's rows of the epoch: its share of each batch of the shuffle."""
        rows, world = self._squares.rows, self._fabric.world_size
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "epoch", number))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        batches = shuffled[: self._steps * world * self._share].view(-1, world, self._share)
        return batches[:, self._fabric.global_rank].reshape(-1)


def initial_student(config: StudentConfig, size: int, seed: int) -> Student:
    """Return the student as it is before a training with ``seed`` begins."""
    return build_student(config.model, size, derive_seed(seed, "student"))


def _head(width: int, dim: int, seed: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Linear(width, dim)


def _measured(squares: Squares, ids: NDArray[np.int64], source: Source) -> Tensor:
    """Return the rows to measure the normalisation on: a choice by id, for any order of rows."""
    chosen = np.isin(ids[squares.rows.numpy()], measured_ids(source.ids))
    return squares.rows[torch.from_numpy(chosen)]


def _lookup(targets: NDArray[np.float16], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return rows -> float32 (B, n) on ``device``; the targets stay there if they fit."""
    if targets.nbytes <= RESIDENT_BYTES:
        resident = torch.tensor(targets, device=device)
        return lambda rows: resident[rows].float()
    return lambda rows: torch.from_numpy(targets[rows.cpu().numpy()]).to(device).float()


def _share(batch_size: int, rows: int, devices: int) -> int:
    """Return how many samples of a batch one device takes; batch norm needs at least 2."""
    share = min(batch_size, rows) // devices
    if share < 2 or batch_size % devices:
        raise ConfigError(
            f"student.batch_size {batch_size} cannot be shared by {devices} device(s) with {rows} "
            "samples: give a multiple of the devices, with at least 2 samples for each"
        )
    return share


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what models draw themselves (dropout), and put the random state back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
