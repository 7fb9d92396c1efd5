"""The devices that a student is trained on, through Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from coopt_fl.config.schema import RuntimeConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.runtime import compute, keep_freed_memory, pick_device

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


@contextmanager
def devices_for(
    runtime: RuntimeConfig, devices: int | str, *, staged: bool = False
) -> Iterator[Fabric]:
    """Yield a Fabric over ``devices`` GPUs ("auto": all), or CPU processes without a GPU.

    Several devices mean as many processes: Fabric starts the running command again for each one
    but the first. These leave with status 0 at the end of the block, so that what follows it is
    done once.

    Args:
        runtime: Precision and determinism on a GPU.
        devices: How many.
        staged: Whether some weights have no gradient in some steps, which several devices take
            for a mistake unless they know.

    Raises:
        ConfigError: ``devices`` is less than 1, or more than there are GPUs.
    """
    from lightning.fabric import Fabric  # takes seconds, which only a training should cost

    gpu = pick_device().type == "cuda"
    count = _count(devices, gpu)
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=count,
        strategy="ddp_find_unused_parameters_true" if staged and count > 1 else "auto",
        precision=PRECISIONS[runtime.precision if gpu else "float32"],
    )
    outside = set(os.environ)
    fabric.launch()
    keep_freed_memory()
    with compute(torch.get_num_threads(), runtime.deterministic):
        yield fabric
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()
        if not fabric.is_global_zero:
            raise SystemExit(0)
        for name in set(os.environ) - outside:  # else the next launch would start no process
            del os.environ[name]


@contextmanager
def enough_memory(work: str, remedy: str) -> Iterator[None]:
    """Raise ConfigError with the ``remedy`` where a GPU has no memory left for the ``work``."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"the GPU has too little memory to {work}: {remedy}") from error


def _count(devices: int | str, gpu: bool) -> int:
    """Return how many devices that is; without a GPU any number of processes will do."""
    if isinstance(devices, str):
        return torch.cuda.device_count() if gpu else 1
    if devices < 1:
        raise ConfigError(f"--devices is {devices}; give at least 1, or leave it out for all")
    found = torch.cuda.device_count() if gpu else devices
    if devices > found:
        raise ConfigError(
            f"--devices is {devices}, but this host has {found} GPU(s); give at most that many"
        )
    return devices
