"""The training loop of a student: its state on one device, and one pass over the dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from coopt_fl.config.schema import StudentConfig
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.link import Link
from coopt_fl.core.runtime import channels_last, tensor_cores
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import Preprocess, Source
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.students.augment.view import View, draw_view
from coopt_fl.students.checkpoint import LoadedStudent, save_student
from coopt_fl.students.images import (
    RESIDENT_BYTES,
    Squares,
    measure,
    measured_ids,
    normalise,
    own_size,
)
from coopt_fl.students.initial import initial_student
from coopt_fl.students.objectives import Setting, make_objective
from coopt_fl.targets.whitening import fit_whitening

if TYPE_CHECKING:
    from lightning_fabric import Fabric

WARMUP = 0.05
"""Share of the steps over which the learning rate rises from near zero to its peak."""


class Training:
    """An objective with its student, its optimizer and its data, on one device.

    All randomness derives from the seed, the number of the epoch and a sample's row, so a
    checkpoint needs only the states of the objective and of the optimizer.

    Attributes:
        samples: Number of samples that an epoch trains on, over all devices.
    """

    def __init__(
        self,
        fabric: Fabric,
        dataset: OptimizedDataset | None,
        source: Source,
        config: StudentConfig,
        on_error: str,
        seed: int,
        link: Link | None = None,
    ) -> None:
        self._fabric, self._config, self._seed = fabric, config, seed
        ids = source.ids if dataset is None else dataset.ids
        size = config.image_size or own_size(source)
        self._squares = Squares(source, ids, size, fabric.device, on_error, link)
        rows = self._squares.rows
        if len(rows) < 2:
            raise DataError(f"{source.name} has fewer than 2 readable images to train on")
        self._share = min(config.batch_size, len(rows)) // fabric.world_size  # of each batch
        if self._share < 2 or config.batch_size % fabric.world_size:  # batch norm needs 2
            raise ConfigError(
                f"student.batch_size {config.batch_size} cannot be shared by {fabric.world_size} "
                f"device(s) with {len(rows)} samples: give a multiple of the devices, with at "
                "least 2 samples for each"
            )
        self._steps = len(rows) // (self._share * fabric.world_size)
        self.samples = self._steps * self._share * fabric.world_size
        # chosen by id, so that the order of the dataset's rows does not matter
        measured = torch.from_numpy(np.isin(ids[rows.numpy()], measured_ids(source.ids)))
        self._preprocess = measure(self._squares, rows[measured])
        student = initial_student(config, size, seed)
        setting = Setting(
            samples=len(ids),
            devices=fabric.world_size,
            config=config,
            dim=dataset.dim if dataset else 0,
            parts=dataset.parts if dataset and not config.whiten else (),  # whitening mixes them
            targets=_lookup(dataset.targets, config.whiten, fabric.device) if dataset else None,
            normalised=self._preprocess,
        )
        self._objective = make_objective(
            config.objective, student, setting, derive_seed(seed, "head")
        )
        channels_last(self._objective)
        optimizer = make_optimizer(self._objective, config.lr, config.weight_decay)
        self._model, self._optimizer = fabric.setup(self._objective, optimizer)

    @property
    def student(self) -> LoadedStudent:
        """The student in its current state, on the device, sharing the weights in training."""
        return LoadedStudent(self._objective.student, self._preprocess, {})

    def save(self, path: Path, meta: dict[str, Any], *, last: bool) -> None:
        """Write a checkpoint; unless it is the last one, with the state for :meth:`resume`."""
        resume = {
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        save_student(path, replace(self.student, meta=meta), None if last else resume)

    def resume(self, state: dict[str, Any]) -> None:
        """Load ``resume`` of a checkpoint that was not the last."""
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])

    def epoch(self, number: int) -> float:
        """Train for one epoch, shuffled, and return the mean loss; ``number`` counts from 0.

        Drops the incomplete last batch.

        Raises:
            ConfigError: The loss is not finite.
            DataError: An image cannot be read.
        """
        losses = self._fabric.all_reduce(self.steps(number), reduce_op="mean")
        mean = float(cast(Tensor, losses))
        if not math.isfinite(mean):
            raise ConfigError(
                f"the student's loss is {mean} after epoch {number + 1}; set a lower student.lr, "
                "or runtime.precision=float32"
            )
        return mean

    def steps(self, number: int) -> Tensor:
        """Train for the steps of one epoch and return their mean loss on this device.

        The loop does not wait for a GPU, except that images which are not kept there wait for the
        batch two steps back.
        """
        config, device, steps = self._config, self._fabric.device, self._steps
        total, all_steps = torch.zeros((), device=device), config.epochs * steps
        self._model.train()
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            tensor_cores(device),
        ):
            torch.manual_seed(derive_seed(self._seed, "dropout", number, self._fabric.global_rank))
            parts = self._squares.batches(self._order(number), self._share)
            whole = _whole(parts, steps, self._share)
            for step, (images, rows) in enumerate(whole, start=number * steps):
                progress = step / all_steps
                set_rate(self._optimizer, step, all_steps, config.lr)
                loss = self._model(self._views(images, rows, number), rows, progress)
                self._fabric.backward(loss)
                self._optimizer.step()
                self._optimizer.zero_grad()
                self._objective.after_step(progress)
                total += loss.detach()
        return total / steps

    def _views(self, images: Tensor, rows: Tensor, epoch: int) -> list[Tensor]:
        """Return each view that the objective asks for, augmented and normalised."""
        views = self._objective.views
        seeds = [derive_seed(self._seed, "augment", epoch, index) for index in range(len(views))]
        return augmented(images, rows, views, seeds, self._preprocess)

    def _order(self, number: int) -> Tensor:
        """Return the rows of this device in the epoch: its share of each shuffled batch."""
        rows, world = self._squares.rows, self._fabric.world_size
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "epoch", number))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        batches = shuffled[: self.samples].view(-1, world, self._share)
        return batches[:, self._fabric.global_rank].reshape(-1)


def augmented(
    images: Tensor,
    rows: Tensor,
    views: Sequence[View],
    seeds: Sequence[int],
    preprocess: Preprocess,
) -> list[Tensor]:
    """Return augmented, normalised views (B, 3, v, v) of uint8 images (B, 3, s, s).

    View i draws its random numbers from ``seeds[i]`` and the images' ``rows`` (B,). All work
    happens on the device of the images.
    """
    unit = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
    return [
        normalise(view(unit, draw_view(rows, seed)), preprocess)
        for view, seed in zip(views, seeds, strict=True)
    ]


def _lookup(
    targets: NDArray[np.float16], whiten: bool, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return a function from rows (B,) to float32 targets (B, D) on ``device``.

    The targets are kept there if they fit.
    """
    change = fit_whitening(targets, device).on(device) if whiten else Tensor.float
    fits = targets.nbytes <= RESIDENT_BYTES
    resident = torch.tensor(targets, device=device) if fits else None

    def lookup(rows: Tensor) -> Tensor:
        found = (
            torch.from_numpy(targets[rows.cpu().numpy()]).to(device)
            if resident is None
            else resident[rows]
        )
        with torch.autocast(device.type, enabled=False):  # whitening needs float32 products
            return change(found)

    return lookup


def _whole(
    parts: Iterable[tuple[Tensor, Tensor]], steps: int, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``steps`` batches of ``size`` images, repeating images in place of unreadable ones.

    All devices must take the same number of steps, as they wait for each other in each.

    Raises:
        DataError: Not one image of the epoch can be read.
    """
    remaining, part = iter(parts), None
    for _ in range(steps):
        part = next(remaining, part)
        if part is None:
            raise DataError("none of the images of an epoch can be read")
        images, rows = part
        if len(rows) < size:
            again = torch.arange(size) % len(rows)
            part = images[again.to(images.device)], rows[again.to(rows.device)]
        yield part


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """Return AdamW with weight decay on matrices and kernels, but not on biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, fused=True)


def set_rate(optimizer: Optimizer, step: int, steps: int, peak: float) -> None:
    """Set the learning rate of ``step`` (0 to ``steps`` - 1): linear warm-up, then cosine."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        rate = peak * (step + 1) / warmup
    else:
        rate = peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = rate
