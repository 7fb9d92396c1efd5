"""Streaming optimization: from the images of whole blocks to their targets.

Priors and students alike compute their features by :func:`encode`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.core.link import Link, Work, feed, link_to
from coopt_fl.data import Source, batches
from coopt_fl.priors.prior import Prior
from coopt_fl.targets.alignment import Alignment

Ids = NDArray[np.int64]
Images = Tensor | list[Tensor]
"""uint8 (B, 3, H, W), or a list of B tensors (3, H, W) if they differ in size."""

Read = tuple[Tensor, Images, tuple[int, ...]]
"""One batch: ids int64 (B,) on any device, their images, and ids that cannot be read."""


class How(TypedDict):
    """How images are read and passed through a prior.

    ``batch_size`` is the rows of a forward pass, ``precision`` the arithmetic of the prior, and
    ``on_error`` says what to do with an unreadable image: "raise" or "skip".
    """

    batch_size: int
    precision: str
    on_error: str


Release = Callable[[Ids, NDArray[np.float32]], NDArray[np.float16]]


@dataclass(frozen=True)
class Encoded:
    """A model's outputs for some samples.

    Attributes:
        ids: int64 (R,).
        values: Outputs: features float32 (R, m) or targets float16 (R, n).
        finite: bool (R,): whether the features were finite.
        skipped: Ids whose images cannot be read.
    """

    ids: Ids
    values: NDArray[Any]
    finite: NDArray[np.bool]
    skipped: tuple[int, ...]


def represent(prior: Prior, source: Source, ids: Ids, **how: Unpack[How]) -> Encoded:
    """Return the prior's features of the samples ``ids``, in their order.

    Raises:
        DataError: an image cannot be read and ``on_error`` is "raise".
        PriorError: a feature is not finite; the sample is named.
    """
    return next(represent_blocks(prior, source, [ids], **how))


def represent_blocks(
    prior: Prior, source: Source, blocks: Sequence[Ids], **how: Unpack[How]
) -> Iterator[Encoded]:
    """Yield the prior's features of each block of samples, as :func:`represent` returns them."""
    features = _Outputs(prior.width, torch.float32, Tensor.float)
    return _encode_blocks(prior, source, blocks, features, link_to(prior.device), **how)


def optimize(
    prior: Prior,
    source: Source,
    blocks: Sequence[Ids],
    alignment: Alignment,
    *,
    release: Release | None = None,
    link: Link | None = None,
    **how: Unpack[How],
) -> Iterator[Encoded]:
    """Yield the targets of each block; memory is O(block).

    A forward pass has ``batch_size`` rows, or at the end of a block the next power of two, and
    never crosses a block, so the bits of a row do not depend on what else is asked for.

    Args:
        prior: the prior whose features become targets.
        source: where the images are.
        blocks: ids (R,) of each block.
        alignment: from features to targets.
        release: returns the float16 targets to hand out, such as noisy ones; None: only round.
        link: the way to the prior's device; None: the usual one of that device.
        how: see :class:`How`.

    Raises:
        DataError: an image cannot be read and ``on_error`` is "raise".
        PriorError: the alignment is of another width (raised at the call, not at the first block);
            a feature is not finite or a target too large for float16; the sample is named.
    """
    width, dim = alignment.weight.shape
    if prior.width != width:
        raise PriorError(
            f"prior {prior.id} gives features of width {prior.width}, but its alignment takes "
            f"{width}: it was fitted for another prior, start with a new --out"
        )
    dtype = torch.float32 if release else torch.float16
    targets = _Outputs(dim, dtype, alignment.on(prior.device))
    made = _encode_blocks(prior, source, blocks, targets, link or link_to(prior.device), **how)
    if release is None:
        return made
    return (replace(block, values=release(block.ids, block.values)) for block in made)


def encode(
    features: Callable[[Images], Tensor],
    stream: Iterable[Read],
    batch_size: int,
    values: Tensor,
    finish: Callable[[Tensor], Tensor] = Tensor.float,
) -> Encoded:
    """Return a model's outputs for a stream of images.

    They are gathered on the device and copied from it once, so that no batch waits for a copy.

    Args:
        features: from images to features (B, m).
        stream: batches of at most ``batch_size`` images. A smaller batch is padded to the next
            power of two, so that there are few shapes and little wasted work.
        batch_size: most rows of a forward pass.
        values: buffer (R, n) on the device of the features, overwritten; R is at least the number
            of images in ``stream``.
        finish: from features (B, m) to outputs (B, n).
    """
    return _launch(features, stream, batch_size, values, finish, Link(values.device)).result()


@dataclass(frozen=True)
class _Launched:
    """A pending :class:`Encoded`: its ids, values and finite, on the CPU once ``work`` is done."""

    parts: tuple[Tensor, ...]
    skipped: tuple[int, ...]
    work: Work | None

    def result(self) -> Encoded:
        """Wait for the device, and return the outputs."""
        if self.work is not None:
            self.work.synchronize()
        ids, values, finite = (part.numpy() for part in self.parts)
        return Encoded(ids, values, finite, self.skipped)


def _launch(
    features: Callable[[Images], Tensor],
    stream: Iterable[Read],
    batch_size: int,
    values: Tensor,
    finish: Callable[[Tensor], Tensor],
    link: Link,
) -> _Launched:
    """Queue the work of :func:`encode` on the device, without waiting for it."""
    finite = torch.empty(len(values), dtype=torch.bool, device=values.device)
    ids, skipped, done = [torch.empty(0, dtype=torch.int64, device=values.device)], list[int](), 0
    for some, images, left_out in stream:
        skipped += left_out
        rows = len(some)
        if rows:
            here = slice(done, done + rows)
            found = features(_padded(images, batch_size))
            values[here] = finish(found)[:rows]
            finite[here] = found[:rows].isfinite().all(dim=1)
            ids.append(some)
            done += rows
    fetched = tuple(link.fetch(part) for part in (torch.cat(ids), values[:done], finite[:done]))
    return _Launched(fetched, tuple(skipped), link.work())


@dataclass(frozen=True)
class _Outputs:
    """The outputs that ``finish`` computes from features (B, m): (B, dim) of ``dtype``."""

    dim: int
    dtype: torch.dtype
    finish: Callable[[Tensor], Tensor]


def _encode_blocks(
    prior: Prior,
    source: Source,
    blocks: Sequence[Ids],
    outputs: _Outputs,
    link: Link,
    *,
    batch_size: int,
    precision: str,
    on_error: str,
) -> Iterator[Encoded]:
    """Encode the blocks one after another.

    An asynchronous device has begun the next block when one is yielded.

    Images of different sizes may be large, so they are resized and cropped where they are read.
    Images of a source with one size are small, and resized on the device. The two may differ in
    bits, so an array and published shards of it have to be handled alike.
    """
    seen, fit = source.for_edge(prior.preprocess.resize), None
    if source.image_size is None:
        fit = prior.preprocess.square
        prior = replace(prior, preprocess=prior.preprocess.fitted)
    read = batches(seen, blocks, batch_size, on_error, fit=fit)
    pairs = (((torch.from_numpy(batch.ids), batch.pixels), batch) for batch in read)
    features = partial(prior.features, precision=precision)
    with closing(read), closing(feed(pairs, link)) as arrived:
        stream = (
            (some, replace(batch, pixels=pixels).images, batch.skipped)
            for (some, pixels), batch in arrived
        )
        launched = deque[_Launched]()
        for ids in blocks:  # batches never cross blocks
            of_this_block = islice(stream, -(-len(ids) // batch_size))
            values = torch.empty(len(ids), outputs.dim, dtype=outputs.dtype, device=prior.device)
            launched.append(
                _launch(features, of_this_block, batch_size, values, outputs.finish, link)
            )
            if len(launched) > min(link.ahead, 1):
                yield _checked(launched.popleft().result(), prior, source)
        for last in launched:
            yield _checked(last.result(), prior, source)


def _checked(block: Encoded, prior: Prior, source: Source) -> Encoded:
    """Return the block if its features and targets are finite.

    Raises:
        PriorError: one is not; the first such sample is named.
    """
    for usable, problem in (
        (block.finite, "its features are not finite: check the prior's weights"),
        (np.isfinite(block.values).all(axis=1), "its target is too large for float16"),
    ):
        if not usable.all():
            sample = int(block.ids[int(usable.argmin())])
            where = source.where(sample)
            raise PriorError(f"prior {prior.id}, sample {sample} ({where}): {problem}")
    return block


def _padded(images: Images, most: int) -> Images:
    """Return the images, padded with the first one to a power of two, or to ``most``."""
    missing = min(most, 1 << (len(images) - 1).bit_length()) - len(images)
    if isinstance(images, list):
        return images + images[:1] * missing
    return torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
