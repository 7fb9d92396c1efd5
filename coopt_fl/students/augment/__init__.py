"""Augmentation of a batch on the device, each sample by its own draw."""

from coopt_fl.students.augment.published import (
    BYOL,
    DCL,
    DINO,
    INSTDISC,
    MOCO,
    RELA,
    SIMCLR,
    SIMSIAM,
    SWAV,
    Published,
)
from coopt_fl.students.augment.view import DRAWS, View, draw_view

__all__ = [
    "BYOL",
    "DCL",
    "DINO",
    "DRAWS",
    "INSTDISC",
    "MOCO",
    "RELA",
    "SIMCLR",
    "SIMSIAM",
    "SWAV",
    "Published",
    "View",
    "draw_view",
]
