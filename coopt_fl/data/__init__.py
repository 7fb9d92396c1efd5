"""Unlabeled images: sources with stable sample ids, batches, blocks, and device-side preprocessing.

Labels are read by ``open_labels`` and ``split_labels`` alone, which only the probe and the report
may use.
"""

from coopt_fl.data.batches import Batch, batches
from coopt_fl.data.blocks import make_blocks, make_units, shared_set
from coopt_fl.data.image import Preprocess, decode
from coopt_fl.data.labels import open_labels, split_labels
from coopt_fl.data.source import CorruptImage, NoSplitError, Source, open_source

__all__ = [
    "Batch",
    "CorruptImage",
    "NoSplitError",
    "Preprocess",
    "Source",
    "batches",
    "decode",
    "make_blocks",
    "make_units",
    "open_labels",
    "open_source",
    "shared_set",
    "split_labels",
]
