"""``provenance.json``: what an optimized dataset is, from what, by whom, and how to check it."""

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from coopt_fl.config.load import to_dict
from coopt_fl.config.schema import Config

FORMAT = 2
PACKAGES = (
    "coopt-fl",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "lightly",
    "scikit-learn",
    "openTSNE",
    "numpy",
    "scipy",
    "flwr",
    "ray",
)
"""What determines the numbers, where it is installed."""


@dataclass(frozen=True)
class Contributor:
    """One participant's part in the dataset; ``participant`` in the files is its index.

    ``uniformity`` and ``r2_heldout`` are None, ``alignment_sha256`` is empty for one that was lost
    before that was known.
    """

    name: str
    prior: str
    weights_sha256: str
    alignment_sha256: str
    uniformity: float | None
    r2_heldout: float | None
    cycle: int = 0


@dataclass(frozen=True)
class DataFile:
    """One published file: its blocks are ``first_block`` up to, not including, ``end_block``."""

    path: str
    sha256: str
    rows: int
    first_block: int
    end_block: int


@dataclass(frozen=True)
class Provenance:
    """Everything that :mod:`coopt_fl.optimized.verify` needs, and a reader wants to know."""

    format: int
    config: dict[str, Any]
    source: dict[str, Any]
    contributors: list[Contributor]
    reference: str
    plan_changes: list[dict[str, Any]]
    audit: dict[str, Any]
    privacy: dict[str, Any] | None
    versions: dict[str, str]
    seed: int
    dim: int
    dtype: str
    normalisation: str
    augmentation: str
    rows: int
    skipped: list[int]
    files: list[DataFile]
    block_rows: list[int]
    block_digests: list[str]
    digest: str
    parent: str | None
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists for JSON."""
        return asdict(self)


def draft(
    *,
    config: Config,
    source: dict[str, Any],
    contributors: list[Contributor],
    reference: str,
    plan_changes: list[dict[str, Any]],
    audit: dict[str, Any],
    privacy: dict[str, Any] | None = None,
) -> Provenance:
    """Return the provenance of a dataset that is about to be published."""
    return Provenance(
        format=FORMAT,
        config=to_dict(config),
        source=source,
        contributors=contributors,
        reference=reference,
        plan_changes=plan_changes,
        audit=audit,
        privacy=privacy,
        versions=versions(),
        seed=config.seed,
        dim=config.targets.dim,
        dtype="float16",
        normalisation="centred, and scaled as a whole to unit RMS",
        augmentation="targets of the unaugmented image",
        rows=0,
        skipped=[],
        files=[],
        block_rows=[],
        block_digests=[],
        digest="",
        parent=None,
        complete=False,
    )


def versions() -> dict[str, str]:
    """Return the versions of what determines the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
