"""The augmentation that each baseline's paper published, for 224 pixels and for small images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coopt_fl.students.augment.view import View
from coopt_fl.students.models import SMALL_IMAGE

LOCAL = 96 / 224
"""Side of a local view relative to a global one (Caron et al. 2020)."""


@dataclass(frozen=True)
class Published:
    """The views of a method.

    Attributes:
        large: Views for images of ImageNet's size.
        small: Views for images of up to 64 pixels: the authors' settings for CIFAR-10, or else
            those of lightly or solo-learn. None of them has blur or local views: a twentieth of
            32x32 pixels shows nothing.
    """

    large: tuple[View, ...]
    small: tuple[View, ...]

    def at(self, image_size: int) -> tuple[View, ...]:
        """Return the views for images of ``image_size`` pixels."""
        return self.small if image_size <= SMALL_IMAGE else self.large


def _sharp(views: Sequence[View]) -> tuple[View, ...]:
    """Return the views without blur."""
    return tuple(replace(view, blur=0.0) for view in views)


_STRONG = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
_HALF = View(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
_WEAK = View(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
_MOCO = (replace(_HALF, scale=(0.2, 1.0), blur=0.5),) * 2
_WIDE = (0.14, 1.0)
_BYOL = (replace(_WEAK, blur=1.0), replace(_WEAK, blur=0.1, solarise=0.2))
_DINO = tuple(replace(view, scale=_WIDE) for view in _BYOL)

SIMCLR = Published(large=(_STRONG,) * 2, small=(_HALF,) * 2)
"""Chen et al. 2020, appendices A and B.9; also used by Yeh et al. 2022 (DCL)."""

BYOL = Published(large=_BYOL, small=_sharp(_BYOL))
"""Grill et al. 2020, table 6; ``small`` from solo-learn."""

MOCO = Published(large=_MOCO, small=(_HALF,) * 2)
"""Chen et al. 2020 (v2); ``small`` from the authors' CIFAR-10 notebook."""

SIMSIAM = Published(large=_MOCO, small=_sharp(_MOCO))
"""Chen and He 2021, section 3 and appendix D."""

SWAV = Published(
    large=(replace(_STRONG, scale=_WIDE),) * 2
    + (replace(_STRONG, scale=(0.05, 0.14), size=LOCAL),) * 6,
    small=(replace(_HALF, scale=_WIDE),) * 2,
)
"""Caron et al. 2020: two global views and six local ones; ``small`` from lightly."""

DINO = Published(
    large=_DINO + (replace(_WEAK, scale=(0.05, 0.14), size=LOCAL, blur=0.5),) * 8,
    small=_sharp(_DINO),
)
"""Caron et al. 2021: two global views and eight local ones, with the scales that the authors use
for ResNet-50 and recommend for training without local views."""

_INSTDISC = (
    View(scale=(0.2, 1.0), jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
)
INSTDISC = Published(large=_INSTDISC, small=_INSTDISC)
"""Wu et al. 2018; ``large`` and ``small`` are both from the authors' code."""

_RELA = (replace(_sharp([_STRONG])[0], scale=(0.5, 1.0)),) * 2
RELA = Published(large=_RELA, small=_RELA)
"""Sun et al. 2024; ``large`` and ``small`` are both from the authors' code."""
