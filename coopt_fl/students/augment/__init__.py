"""Augmentation of a batch on the device, with random numbers of its own for each sample."""

from coopt_fl.students.augment.published import Published
from coopt_fl.students.augment.view import DRAWS, View, draw_view

__all__ = ["DRAWS", "Published", "View", "draw_view"]
