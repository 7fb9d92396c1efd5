"""Unlabeled images: sources with stable sample ids, batches, blocks, and device-side preprocessing.

Only ``open_labels``, ``split_labels`` and ``unlabeled`` read labels, and only the probe, the report
and a partition by class may use them.
"""

from coopt_fl.data.batches import batches
from coopt_fl.data.blocks import shared_set
from coopt_fl.data.image import Preprocess, decode
from coopt_fl.data.labels import open_labels, split_labels, unlabeled
from coopt_fl.data.own import OwnSource, from_arrays, from_dataset
from coopt_fl.data.source import Source, open_source
from coopt_fl.data.stream import Stream

__all__ = [
    "OwnSource",
    "Preprocess",
    "Source",
    "Stream",
    "batches",
    "decode",
    "from_arrays",
    "from_dataset",
    "open_labels",
    "open_source",
    "shared_set",
    "split_labels",
    "unlabeled",
]
