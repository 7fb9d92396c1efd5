"""Images that a platform publishes for participants that do not hold them.

``URL/blocks/0000000.parquet`` and so on, one file for each unit, hold the ids and the images that
are asked for with it; ``URL/shared.parquet`` those of the shared set; ``URL/manifest.json``, which
is written last, tells what they are and how each can be verified.
"""

from coopt_fl.data.shards.fetch import Shards, open_shards
from coopt_fl.data.shards.manifest import Layout
from coopt_fl.data.shards.publishing import publish

__all__ = ["Layout", "Shards", "open_shards", "publish"]
