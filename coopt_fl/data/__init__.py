"""Unlabeled images: sources with stable sample ids, batches, blocks, and device-side preprocessing.

Labels have their own door, :mod:`coopt_fl.data.labels`, which only the probe may use.
"""

from coopt_fl.data.batches import Batch, batches
from coopt_fl.data.blocks import make_blocks, make_units, shared_set
from coopt_fl.data.image import Preprocess
from coopt_fl.data.source import CorruptImage, Source, open_source

__all__ = [
    "Batch",
    "CorruptImage",
    "Preprocess",
    "Source",
    "batches",
    "make_blocks",
    "make_units",
    "open_source",
    "shared_set",
]
