"""The studies of each ``--scale``, read from ``scales.yaml``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError

LONG = (
    ("resnet18", 16, 12),
    ("vit_tiny", 16, 8),
    ("mobilenet_v2", 16, 13),
    ("efficientnet_b0", 16, 9),
)
"""Architectures with image size and epochs."""


@dataclass(frozen=True)
class Study:
    """One source of images with the settings of experiments on it.

    Attributes:
        data: The images; training uses the train split, the probe also the test split.
        priors: One prior for each participant.
        shared: Size of the shared set.
        dim: Width n of a target.
        block_rows: Samples of a block.
        student: Model and training; experiments change the objective.
        weak: Untrained priors.
        ladder: Better and better priors, for the cycles of ``continual``.
        sizes: Sizes of the shared set, for ``shared_size``.
        models: Architectures, for ``table3_architectures``.
        lightly: Epochs of lightly-train's SimCLR; 0: none.
        crowd: One prior for each of many participants, for the tables ``crowd_*``.
        sides: Input sizes of the priors in pixels, for ``prior_size``.
        crowds: Numbers of participants, for ``costs`` and ``sending_weights``.
        widths: Widths of a target, for ``costs`` and ``target_width``.
        lengths: Epochs of a training, for ``recipe_long``.
        trained: Architectures with image size and epochs, for ``table3_long``.
        elsewhere: Sources of other labeled images, for ``transfer``.
        audit: Samples for the audit, as a share of a block.
        seconds: Time of each training of ``equal_seconds``, including its targets on one device.
        precision: Precision of the priors; the student has its own.
        every: Epochs between two probes of a curve.
        probe: Most train rows, and most test rows, of a probe; None: all.
        online: Epochs of online distillation by one teacher, and by all; 0: none.
        seeds: Seeds of everything: plan, shared set, initialisation, augmentation.
    """

    data: DataConfig
    priors: tuple[str, ...]
    shared: int
    dim: int
    block_rows: int
    student: StudentConfig
    weak: tuple[str, ...]
    ladder: tuple[str, ...]
    sizes: tuple[int, ...]
    models: tuple[str, ...]
    audit: float = 0.01
    seconds: float = 60.0
    precision: str = "float32"
    every: int = 1
    probe: int | None = None
    online: tuple[int, ...] = ()
    lightly: int = 0
    sides: tuple[int, ...] = ()
    crowd: tuple[str, ...] = ()
    crowds: tuple[int, ...] = (3, 10, 100)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    lengths: tuple[int, ...] = (40, 5, 100)
    trained: tuple[tuple[str, int, int], ...] = LONG
    elsewhere: tuple[str, ...] = ("fashion_mnist", "digits")
    seeds: tuple[int, ...] = (0, 1, 2)


def _study(told: dict[str, Any]) -> Study:
    given: dict[str, Any] = {
        key: tuple(one) if isinstance(one, list) else one for key, one in told.items()
    }
    given["data"], given["student"] = DataConfig(**told["data"]), StudentConfig(**told["student"])
    return Study(**given)


ON_DISK = ("parquet", "imagefolder", "tiny_imagenet")
"""Sources that read images from a folder of the user."""

SCALES: dict[str, dict[str, Study]] = {
    scale: {name: _study(told) for name, told in every.items()}
    for scale, every in yaml.safe_load(Path(__file__).with_name("scales.yaml").read_text()).items()
}


def studies(scale: str, root: str | None, only: str | None = None) -> dict[str, Study]:
    """Return the studies of a scale, or only one, with ``root`` as the folder of their images.

    If several sources of the scale need a folder, each has a subfolder named after its study:
    ``root/tiny_imagenet``, ``root/imagenet``.

    Raises:
        ConfigError: There is no such study at this scale, or ``root`` is missing.
    """
    every = SCALES[scale]
    chosen = {name: study for name, study in every.items() if only in (None, name)}
    if not chosen:
        raise ConfigError(f"--only must be one of {', '.join(every)} at this scale, not {only!r}")
    rooted = [name for name, study in every.items() if study.data.source in ON_DISK]
    if root is None and chosen.keys() & rooted:
        raise ConfigError(f"--scale {scale} needs --root DIR, the images of {', '.join(rooted)}")
    for name in chosen.keys() & rooted:
        data = replace(chosen[name].data, root=f"{root}/{name}" if len(rooted) > 1 else root)
        chosen[name] = replace(chosen[name], data=data)
    return chosen
