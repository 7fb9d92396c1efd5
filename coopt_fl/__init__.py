"""CoOpt-FL: participants with pretrained priors turn unlabeled images into an optimized dataset."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from coopt_fl.optimized.read import OptimizedDataset

__version__ = "0.1.0"


def load(path: "str | Path", *, mmap: bool = False) -> "OptimizedDataset":
    """Open the optimized dataset at ``path``; see :func:`coopt_fl.optimized.read.load`."""
    from coopt_fl.optimized.read import load as read

    return read(path, mmap=mmap)
