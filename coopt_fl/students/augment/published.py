"""The augmentation that each paper published, for 224 pixels, and what small images need."""

from collections.abc import Sequence
from dataclasses import replace

from coopt_fl.students.augment.view import View
from coopt_fl.students.convnet import SMALL_IMAGE

LOCAL = 96 / 224
"""Side of a local view (Caron et al. 2020)."""

SMALLEST_VIEW = 8
"""Side in pixels below which nothing can be recognised, and backbones fail."""

_STRONG = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
_BYOL = View(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_MOCO = View(scale=(0.2, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.5)

SIMCLR = (_STRONG, _STRONG)
"""Chen et al. 2020, appendix A."""

DCL = SIMCLR
"""Yeh et al. 2022 have SimCLR's."""

BYOL = (replace(_BYOL, blur=1.0), replace(_BYOL, blur=0.1, solarise=0.2))
"""Grill et al. 2020, table 6."""

MOCO = (_MOCO, _MOCO)
"""Chen et al. 2020 (v2)."""

SIMSIAM = MOCO
"""Chen and He 2021, section 3, have MoCo v2's."""

SWAV = (
    *(replace(_STRONG, scale=(0.14, 1.0)),) * 2,
    *(replace(_STRONG, scale=(0.05, 0.14), size=LOCAL),) * 6,
)
"""Caron et al. 2020: two global views and six local ones."""

DINO = (
    replace(_BYOL, scale=(0.4, 1.0), blur=1.0),
    replace(_BYOL, scale=(0.4, 1.0), blur=0.1, solarise=0.2),
    *(replace(_BYOL, scale=(0.05, 0.4), size=LOCAL, blur=0.5),) * 8,
)
"""Caron et al. 2021: two global views and eight local ones."""

INSTDISC = (
    View(scale=(0.2, 1.0), jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
)
"""Wu et al. 2018, the authors' code."""

RELA = (View(scale=(0.5, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),) * 2
"""Sun et al. 2024, the authors' code."""


def views_for(views: Sequence[View], image_size: int) -> list[View]:
    """Return ``views`` for images of a side in pixels.

    Up to 64 pixels nothing is blurred, and SimCLR's colour jitter has half its strength, as in its
    own CIFAR-10 setting (Chen et al. 2020, appendix B.9). No view is smaller than 8 pixels.
    """
    least = min(1.0, SMALLEST_VIEW / image_size)
    sized = [replace(view, size=max(view.size, least)) for view in views]
    if image_size > SMALL_IMAGE:
        return sized
    return [replace(_weaker(view), blur=0.0) for view in sized]


def _weaker(view: View) -> View:
    if view.brightness <= 0.4:
        return view
    halves = {
        key: getattr(view, key) / 2 for key in ("brightness", "contrast", "saturation", "hue")
    }
    return replace(view, **halves)
