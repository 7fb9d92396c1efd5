"""Shards: images that a platform publishes for participants that do not hold them.

``URL/blocks/0000000.parquet`` and so on, one file per unit, contain the ids and images of the unit;
``URL/shared.parquet`` contains those of the shared set. ``URL/manifest.json``, written last,
describes the files and how each is verified.
"""

from coopt_fl.data.shards.fetch import Shards, open_shards
from coopt_fl.data.shards.manifest import Layout
from coopt_fl.data.shards.publishing import publish

__all__ = ["Layout", "Shards", "open_shards", "publish"]
