"""Images and labels of a run's samples, where they are on this host."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import DataConfig
from coopt_fl.data import Source, open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.data.sources.downloads import DOWNLOADS, present
from coopt_fl.report.collect import Run
from coopt_fl.report.parts import LeftOut, Part

SIDE = 64
"""Most pixels on the longer side of a thumbnail."""

LOSSLESS = 32
"""Side up to which a thumbnail is a PNG: JPEG would blur what little there is."""


@dataclass(frozen=True)
class Labels:
    """Classes of a run's samples, int64 (N,) by id; None without, then ``why`` says so."""

    classes: NDArray[np.int64] | None
    why: str


def images_of(run: Run) -> Source:
    """Open the images that the run's dataset was made from.

    Raises:
        LeftOut: they are not on this host, or others are.
        DataError: they cannot be opened.
    """
    data = _settings(run)
    if data.source in DOWNLOADS and not present(data):
        raise LeftOut(f"the images of {data.source} are not on this host, and a report loads none")
    source = open_source(data)
    if run.provenance and source.fingerprint != run.provenance.source["fingerprint"]:
        raise LeftOut(f"the images of {data.source} on this host are not those of this dataset")
    return source


def labels_of(run: Run, images: Part[Source]) -> Labels:
    """Return the classes of ``images``; only to look at targets, which never saw one."""
    if images.value is None:
        return Labels(None, images.why)
    data = _settings(run)
    found = open_labels(data, "train")
    return Labels(found, "" if found is not None else f"{data.source} has no labels.")


def thumbnail(image: Tensor) -> str:
    """Return an image uint8 (3, H, W) as a data URI of at most 64 x 64 pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    picture.thumbnail((SIDE, SIDE))
    kind = "png" if max(picture.size) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _settings(run: Run) -> DataConfig:
    return from_tree(dict(run.config), [], str(run.path)).data
