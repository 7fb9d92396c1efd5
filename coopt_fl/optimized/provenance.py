"""``provenance.json``: what an optimized dataset was made of, by whom, and how to verify it."""

import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from coopt_fl.config.key import plugins_used
from coopt_fl.config.schema import Config
from coopt_fl.core import typed
from coopt_fl.core.errors import VerificationError
from coopt_fl.core.files import is_file
from coopt_fl.core.runtime import instructions
from coopt_fl.core.typed import Count, Rule, Sha256, within
from coopt_fl.data.image import decoder
from coopt_fl.optimized.public import public_config, public_prior, without_places

FORMAT = 2
MOST_NUMBERS = (1 << 31) - 1
"""Longest list in Arrow."""

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
"""Packages, if installed, whose versions may change the numbers."""


@dataclass(frozen=True)
class Contributor:
    """One participant's part in the dataset; ``participant`` in the files is its index.

    For a participant that was lost before they were known, ``uniformity`` and ``r2_heldout`` are
    None, and ``alignment_sha256`` is empty. ``licenses`` are those of the prior's weights, by who
    states them, see :mod:`coopt_fl.optimized.licences`.
    """

    name: str
    prior: str
    weights_sha256: str
    alignment_sha256: str
    uniformity: float | None
    r2_heldout: float | None
    cycle: int = 0
    licenses: dict[str, str] = field(default_factory=dict, metadata={typed.LATER: True})


def _stays_inside(path: str) -> bool:
    return not Path(path).is_absolute() and ".." not in Path(path).parts


@dataclass(frozen=True)
class DataFile:
    """One published file: its blocks are ``first_block`` up to, not including, ``end_block``."""

    path: Annotated[str, Rule(_stays_inside, "a path inside the dataset")]
    sha256: Sha256
    rows: int
    first_block: int
    end_block: int


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a dataset comes from, and everything that :mod:`coopt_fl.optimized.verify` needs.

    ``plugins`` has the parts that do not ship with coopt-fl, each with where it was imported from.
    """

    format: Annotated[int, Rule(FORMAT.__eq__, str(FORMAT))] = FORMAT
    config: dict[str, Any]
    source: dict[str, Any]
    contributors: list[Contributor]
    reference: str
    plan_changes: list[dict[str, Any]]
    audit: dict[str, Any]
    privacy: dict[str, Any] | None
    versions: dict[str, str]
    seed: Annotated[Any, Rule(lambda seed: type(seed) is int, "a whole number")]  # of any size
    dim: Annotated[int, within(0, MOST_NUMBERS)]
    dtype: str = "float16"
    normalisation: str = "centred, and scaled as a whole to unit RMS"
    augmentation: str = "targets of the unaugmented image"
    plugins: dict[str, str] = field(default_factory=dict, metadata={typed.LATER: True})
    rows: Count = 0
    skipped: list[int] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    block_rows: list[Count] = field(default_factory=list)
    block_digests: list[Sha256] = field(default_factory=list)
    digest: Sha256 = ""
    parent: str | None = None
    complete: Annotated[bool, Rule(bool, "true, as at the end of a publication")] = False

    def filled(self, file: DataFile) -> list[int]:
        """Return the blocks of ``file`` that have rows; each of them is a row group."""
        return [
            block for block in range(file.first_block, file.end_block) if self.block_rows[block]
        ]


def draft(
    *,
    config: Config,
    source: dict[str, Any],
    contributors: Sequence[Contributor] = (),
    reference: str,
    plan_changes: Sequence[dict[str, Any]] = (),
    audit: dict[str, Any] | None = None,
    privacy: dict[str, Any] | None = None,
) -> Provenance:
    """Return the provenance of a dataset before its blocks are written, without paths and URLs."""
    return Provenance(
        config=public_config(config),
        source=source,
        contributors=[replace(one, prior=public_prior(one.prior)) for one in contributors],
        reference=reference,
        plan_changes=without_places(list(plan_changes)),
        audit=without_places(audit or {}),
        privacy=privacy,
        plugins=plugins_used(config),
        versions=versions(),
        seed=config.seed,
        dim=config.targets.dim,
    )


def versions() -> dict[str, str]:
    """Return the versions of all that may change the numbers."""
    found = {
        "python": platform.python_version(),
        "CPU instructions": instructions(),
        "image decoder": decoder(),
    }
    return found | _installed()


@cache
def _installed() -> dict[str, str]:
    """Return the versions of those of ``PACKAGES`` that are installed; reading them takes 7 ms."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def read_provenance(dataset: Path) -> Provenance:
    """Read and check the provenance of the dataset folder ``dataset``.

    Raises:
        VerificationError: it is missing, unreadable or malformed.
    """
    path = dataset / "provenance.json"
    if not is_file(path, VerificationError):
        raise VerificationError(
            f"{dataset} holds no finished optimized dataset (no provenance.json, which is written "
            "last); give the dataset folder of a finished run"
        )
    try:
        return parse_provenance(path.read_bytes(), str(path))
    except OSError as error:
        raise VerificationError(f"{path} cannot be read ({error.strerror})") from None


def parse_provenance(content: bytes, place: str) -> Provenance:
    """Check and return the provenance in ``content``; ``place`` is named in errors.

    Raises:
        VerificationError: it is malformed.
    """
    try:
        read = typed.parse(Provenance, content)
        typed.decode(_Source, read.source, "source")
        _check_files(read)
        return read
    except ValueError as error:
        raise VerificationError(
            f"{place} is not a provenance of format {FORMAT} ({error}); copy it again"
        ) from None


@dataclass(frozen=True)
class _Source:
    """The fields of ``source`` in a published dataset."""

    name: str
    fingerprint: str
    rows: int
    licenses: dict[str, str] = field(default_factory=dict, metadata={typed.LATER: True})


def _check_files(read: Provenance) -> None:
    """Raise ValueError unless the files contain all blocks in order."""
    end = 0
    for file in read.files:
        if not end == file.first_block < file.end_block:
            raise ValueError(f"{file.path} begins with block {file.first_block}, expected {end}")
        end = file.end_block
    if not end == len(read.block_rows) == len(read.block_digests):
        raise ValueError(
            f"the files hold {end} blocks, expected {len(read.block_rows)} of block_rows and "
            f"{len(read.block_digests)} of block_digests"
        )
