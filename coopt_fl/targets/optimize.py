"""Streaming optimization: images of whole blocks in, targets out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.data import Batch, Source, batches
from coopt_fl.data.batches import Fit
from coopt_fl.priors.prior import Prior
from coopt_fl.targets.alignment import Alignment

Ids = NDArray[np.int64]
Finish = Callable[[Tensor], Tensor]
Release = Callable[[Ids, NDArray[np.float32]], NDArray[np.float16]]


@dataclass(frozen=True)
class Features:
    """Features ``values`` float32 (S, m) of ``ids`` (S,), and the ids it had to skip."""

    ids: Ids
    values: NDArray[np.float32]
    skipped: tuple[int, ...]


@dataclass(frozen=True)
class BlockTargets:
    """Targets float16 (R, n) of one block's ``ids`` (R,), and the ids it had to skip."""

    ids: Ids
    targets: NDArray[np.float16]
    skipped: tuple[int, ...]


def represent(
    prior: Prior, source: Source, ids: Ids, *, batch_size: int, precision: str, on_error: str
) -> Features:
    """Return the prior's features of the samples ``ids``, in their order.

    Raises:
        DataError: an image cannot be read and ``on_error`` is "raise".
        PriorError: a feature is not finite; the sample is named.
    """
    forward = _forward(prior, source, batch_size, precision, on_error)
    (block,) = forward.blocks([ids], prior.width, torch.float32, lambda features: features)
    return Features(block.ids, block.values.numpy(), block.skipped)


def optimize(
    prior: Prior,
    source: Source,
    blocks: Sequence[Ids],
    alignment: Alignment,
    *,
    batch_size: int,
    precision: str,
    on_error: str,
    release: Release | None = None,
) -> Iterator[BlockTargets]:
    """Return the targets of the blocks, one after another; memory is O(block).

    A forward pass has ``batch_size`` rows, or at the end of a block the next power of two, and
    never crosses a block, so the bits of a row do not depend on what else is asked for.

    Args:
        prior: whose features become targets.
        source: where the images are.
        blocks: ids (R,) of each block.
        alignment: from features to targets.
        batch_size: rows of a forward pass.
        precision: arithmetic on a GPU.
        on_error: what a corrupt image does.
        release: what becomes of ids and targets before they are handed out; None: rounding.

    Raises:
        DataError: an image cannot be read and ``on_error`` is "raise".
        PriorError: the alignment is of another width (raised here, not at the first block); a
            feature is not finite or a target too large for float16; the sample is named.
    """
    width, dim = alignment.weight.shape
    if prior.width != width:
        raise PriorError(
            f"prior {prior.id} gives features of width {prior.width}, but its alignment takes "
            f"{width}: it was fitted for another prior, start with a new --out"
        )
    forward = _forward(prior, source, batch_size, precision, on_error)
    dtype = torch.float32 if release else torch.float16
    rows = forward.blocks(blocks, dim, dtype, alignment.on(prior.device))
    return (_targets(block, release) for block in rows)


@dataclass(frozen=True)
class _Block:
    """Results on the CPU: ``values`` (R, width), ``finite`` (R,) whether the features were."""

    ids: Ids
    values: Tensor
    finite: Tensor
    skipped: tuple[int, ...]


@dataclass(frozen=True)
class _Forward:
    """A prior at work on a source, at most ``batch_size`` rows at a time."""

    prior: Prior
    source: Source
    batch_size: int
    precision: str
    on_error: str
    fit: Fit | None

    def blocks(
        self, blocks: Sequence[Ids], width: int, dtype: torch.dtype, finish: Finish
    ) -> Iterator[_Block]:
        """Yield ``finish(features)`` (R, width) of each block, as ``dtype``."""
        stream = batches(self.source, blocks, self.batch_size, self.on_error, fit=self.fit)
        for ids in blocks:
            block = self._block(stream, len(ids), width, dtype, finish)
            self._check(block)
            yield block

    def _block(
        self, stream: Iterator[Batch], rows: int, width: int, dtype: torch.dtype, finish: Finish
    ) -> _Block:
        """Compute on the device; what leaves it leaves once, so nothing waits on every batch."""
        values = torch.empty(rows, width, dtype=dtype, device=self.prior.device)
        finite = torch.empty(rows, dtype=torch.bool, device=self.prior.device)
        ids, skipped = list[int](), list[int]()
        while len(ids) + len(skipped) < rows:
            batch = next(stream)
            skipped += batch.skipped
            if len(batch.ids):
                here = slice(len(ids), len(ids) + len(batch.ids))
                features = self.prior.features(_fill(batch.images, self.batch_size), self.precision)
                values[here] = finish(features)[: len(batch.ids)]
                finite[here] = features[: len(batch.ids)].isfinite().all(dim=1)
                ids += batch.ids.tolist()
        done = len(ids)
        return _Block(
            np.asarray(ids, np.int64), values[:done].cpu(), finite[:done].cpu(), tuple(skipped)
        )

    def _check(self, block: _Block) -> None:
        self._demand(block, block.finite, "its features are not finite: check the prior's weights")
        usable = block.values.isfinite().all(dim=1)
        self._demand(block, usable, "its target is too large for float16")

    def _demand(self, block: _Block, usable: Tensor, problem: str) -> None:
        """Raise a PriorError that names the first sample that is not usable."""
        if not usable.all():
            sample = int(block.ids[int(usable.int().argmin())])
            where = self.source.where(sample)
            raise PriorError(f"prior {self.prior.id}, sample {sample} ({where}): {problem}")


def _forward(
    prior: Prior, source: Source, batch_size: int, precision: str, on_error: str
) -> _Forward:
    """Let images of different sizes be fitted to the prior where they are read: they may be large.

    Those of one size by nature are small, and fitted on the device. Its bits may differ, so it must
    not matter whether they come from an array or from published shards of it.
    """
    fit = None
    if source.image_size is None:
        fit = prior.preprocess.square
        prior = replace(prior, preprocess=prior.preprocess.fitted)
    return _Forward(prior, source, batch_size, precision, on_error, fit)


def _targets(block: _Block, release: Release | None) -> BlockTargets:
    values = block.values.numpy()
    return BlockTargets(block.ids, release(block.ids, values) if release else values, block.skipped)


def _fill(images: Tensor | list[Tensor], most: int) -> Tensor | list[Tensor]:
    """Return images filled up with the first one to a power of two, or to ``most``.

    Few different shapes, and little to compute for the few rows at the end of a unit.
    """
    missing = min(most, 1 << (len(images) - 1).bit_length()) - len(images)
    if isinstance(images, list):
        return images + images[:1] * missing
    return torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
