"""Groups of images that no block mixes: shares of a partition, or regions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.data import Source
from coopt_fl.data.blocks import shared_set
from coopt_fl.data.partition import partition
from coopt_fl.data.regions import regions
from coopt_fl.registry import PARTS

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Groups of ids; no block mixes those of two.

    Attributes:
        ids: of each group, by name; every id is in one group.
        owned: whether a group belongs to the participant of its name. Units then do not mix groups
            either; otherwise audit ids come from all groups.
    """

    ids: Mapping[str, Ids]
    owned: bool


def groups_of(
    config: Config, source: Source, tell: Callable[[int], None] = lambda done: None
) -> Groups | None:
    """Return the groups of a partition, or regions if ``assignment.by`` needs them, or None.

    Args:
        config: the run.
        source: the images, all of which are read to form regions.
        tell: called with the number of images that were read.

    Raises:
        DataError: see :func:`partition` and :func:`regions`.
        ConfigError: see :func:`partition`.
    """
    if (parts := partition(config, source)) is not None:
        return Groups(parts, owned=True)
    if not by_region(config):
        return None
    shared = shared_set(source.ids, config.shared.size, config.seed)
    found = regions(source, shared, config.seed, config.data, tell)
    return Groups({str(k): source.ids[found == k] for k in np.unique(found)}, owned=False)


def by_region(config: Config) -> bool:
    """Tell whether the assignment gives out regions by what participants can do there."""
    return bool(PARTS.find("assignment", config.assignment.by).fact("by_region"))
