"""The devices that a student is trained on, through Lightning Fabric."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.host import shared_by
from coopt_fl.core.runtime import arithmetic, compute, keep_freed_memory, pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS: dict[torch.dtype, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-mixed",
    torch.float16: "16-mixed",
}


def training_dtype(config: Config) -> torch.dtype:
    """Return the dtype of the matrix products in training the student on this host.

    Raises:
        ConfigError: The processor lacks the instructions for ``student.precision``.
    """
    return arithmetic(config.student.precision, pick_device())


@contextmanager
def _without_torchmetrics() -> Iterator[None]:
    """Keep Fabric from importing torchmetrics, and with it SciPy and torchvision, for a version.

    What Fabric wants to know is told to it from the package's metadata.
    """
    hidden = sys.modules.setdefault("torchmetrics", None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden is None:
            del sys.modules["torchmetrics"]
    if hidden is None:
        from lightning_fabric.utilities import imports
        from lightning_utilities.core.imports import RequirementCache

        imports._TORCHMETRICS_GREATER_EQUAL_1_0_0 = bool(RequirementCache("torchmetrics>=1.0.0"))


@contextmanager
def devices_for(config: Config, devices: int | str, staged: bool = False) -> Iterator[Fabric]:
    """Yield a Fabric over GPUs, or over CPU processes without a GPU.

    There is one process per device: Fabric starts the running command again for each device but
    the first. Those processes exit with status 0 at the end of the block, so that only the first
    one continues after it.

    Args:
        config: Precision of the student, and determinism on a GPU.
        devices: Number of devices; "auto" means all GPUs, but a single device in a notebook or
            without a GPU.
        staged: Whether some weights have no gradient in some steps, which data-parallel training
            must know.

    Raises:
        ConfigError: ``devices`` is less than 1, more than the number of GPUs, or more than 1 in a
            notebook or at a prompt, where there is no command that could be started again.
    """
    with _without_torchmetrics():
        from lightning_fabric import Fabric  # the import takes seconds, so only trainings do it
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    gpu = pick_device().type == "cuda"
    count = _count(devices, gpu)
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=count,
        strategy="ddp_find_unused_parameters_true" if staged and count > 1 else "auto",
        precision=PRECISIONS[training_dtype(config)],
        plugins=[LightningEnvironment()],  # a scheduler, such as SLURM, starts no processes for us
    )
    outside = set(os.environ)
    fabric.launch()
    keep_freed_memory()
    with (
        compute(torch.get_num_threads(), config.runtime.deterministic),
        shared_by(fabric.world_size),
    ):
        yield fabric
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()
        if not fabric.is_global_zero:
            raise SystemExit(0)
        for name in set(os.environ) - outside:  # else the next launch would start no processes
            del os.environ[name]


@contextmanager
def enough_memory(work: str, remedy: str) -> Iterator[None]:
    """Turn a GPU's out-of-memory error into a ConfigError that names ``work`` and ``remedy``."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"the GPU has too little memory to {work}: {remedy}") from error


def _count(devices: int | str, gpu: bool) -> int:
    """Return the number of devices to use; on the CPU this may be any number of processes."""
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    found = torch.cuda.device_count()
    if isinstance(devices, str):
        return found if gpu and not interactive else 1
    if devices < 1:
        raise ConfigError(f"--devices is {devices}; give at least 1, or leave it out for all")
    if gpu and devices > found:
        raise ConfigError(
            f"--devices is {devices}, but this host has {found} GPU(s); give at most that many"
        )
    if devices > 1 and interactive:
        raise ConfigError(
            f"{devices} devices cannot be used from a notebook or a prompt: train with 1, or run "
            "`coopt train` or `coopt pretrain` with --devices on the command line"
        )
    return devices
