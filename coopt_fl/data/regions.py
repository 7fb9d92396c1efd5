"""Regions: groups of images that look alike, formed before any prior has seen an image.

They are clusters of thumbnails. So a run knows them before it begins, at the price of decoding
every image once.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir, cached
from coopt_fl.core.errors import DataError
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data.batches import batches
from coopt_fl.data.source import Source

SIDE = 8
"""Side of a thumbnail in pixels."""

REGIONS = 8
"""Number of regions, where as many thumbnails of the shared set differ."""

Ids = NDArray[np.int64]

_ROWS = 256


def regions(
    source: Source,
    shared: Ids,
    seed: int,
    data: DataConfig,
    tell: Callable[[int], None] = lambda done: None,
) -> NDArray[np.uint8]:
    """Return the region of each image (N,), in the order of ``source.ids``.

    The thumbnails of the shared set are clustered, and each image belongs to the nearest cluster.
    The result is kept in the per-user cache.

    Args:
        source: the images.
        shared: ids of the shared set.
        seed: of the run.
        data: the settings of the source. With ``on_error="skip"``, an image that cannot be read is
            put into the first region.
        tell: called with the number of images that were read.

    Raises:
        CorruptImage: an image cannot be read, and ``on_error`` is "raise".
        DataError: no image of the shared set can be read.
        OutputError: the cache has no room.
    """
    seed = derive_seed(seed, "regions") % 2**32
    read = f"{source.fingerprint} {data.decode} {source.decoder} {data.max_pixels} {data.on_error}"
    key = hashlib.sha256(f"{read} {len(shared)} {seed} {REGIONS}".encode()).hexdigest()
    file = cache_dir() / "regions" / key / "regions.npy"

    def make(path: Path) -> None:
        with path.open("wb") as whole:  # given a name, numpy would append .npy to it
            np.save(whole, _clustered(source, shared, seed, data.on_error, tell))

    return cached(file, lambda: np.load(file), make)


def _clustered(
    source: Source, shared: Ids, seed: int, on_error: str, tell: Callable[[int], None]
) -> NDArray[np.uint8]:
    from sklearn.cluster import KMeans  # takes a second

    readable = [seen for _, seen in _thumbnails(source, shared, on_error)]
    if not readable:
        raise DataError(
            f"none of the {len(shared)} images of the shared set can be read; raise shared.size, "
            "or see which files are damaged"
        )
    known = np.concatenate(readable)
    count = min(REGIONS, len(np.unique(known, axis=0)))
    clusters = KMeans(count, n_init=4, random_state=seed).fit(known)
    found, done = np.zeros(len(source.ids), np.uint8), 0
    for ids, seen in _thumbnails(source, source.ids, on_error):
        found[np.searchsorted(source.ids, ids)] = clusters.predict(seen)
        tell(done := done + len(ids))
    return found


def _thumbnails(
    source: Source, ids: Ids, on_error: str
) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
    """Yield ids (B,) and their images at 8 x 8 pixels, float32 (B, 192) from 0 to 255."""
    for batch in batches(source.for_edge(SIDE), [ids], _ROWS, on_error, fit=_shrunk):
        images = batch.pixels.view(-1, 3 * SIDE * SIDE)
        if len(images):
            yield batch.ids, images.float().cpu().numpy()


def _shrunk(images: Tensor) -> Tensor:
    """Return images (1, 3, H, W) at 8 x 8 pixels: each pixel is the mean of its part."""
    return adaptive_avg_pool2d(images.float(), SIDE)
