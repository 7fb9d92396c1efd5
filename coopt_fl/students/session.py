"""The devices that a student is trained on, through Lightning Fabric."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from coopt_fl.runtime import compute, pick_device
from coopt_fl.schema import RuntimeConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


@contextmanager
def devices_for(runtime: RuntimeConfig, devices: int | str) -> Iterator[Fabric]:
    """Yield a Fabric over ``devices`` GPUs ("auto": all), or CPU processes without a GPU.

    Several devices mean as many processes: Fabric starts the running command again for each one
    but the first. These leave with status 0 at the end of the block, so that what follows it is
    done once.
    """
    from lightning.fabric import Fabric  # takes seconds, which only a training should cost

    gpu = pick_device().type == "cuda"
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=devices,
        precision=PRECISIONS[runtime.precision if gpu else "float32"],
    )
    fabric.launch()
    with compute(torch.get_num_threads(), runtime.deterministic):
        yield fabric
    if fabric.world_size > 1:
        fabric.barrier()
        torch.distributed.destroy_process_group()
        if not fabric.is_global_zero:
            raise SystemExit(0)
