"""``provenance.json``: what an optimized dataset is, from what, by whom, and how to check it."""

import json
import platform
import re
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from coopt_fl.config.load import to_dict
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import VerificationError

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


SHA256 = re.compile("[0-9a-f]{64}")
INT64 = range(-(1 << 63), 1 << 63)


def read_provenance(dataset: Path) -> Provenance:
    """Read and check the manifest of the dataset folder ``dataset``.

    Raises:
        VerificationError: there is none, or it is not one.
    """
    path = dataset / "provenance.json"
    if not path.is_file():
        raise VerificationError(
            f"{dataset} holds no finished optimized dataset (no provenance.json, which is written "
            "last); give the dataset folder of a finished run"
        )
    try:
        raw = json.loads(path.read_bytes())
        known = {field.name for field in fields(Provenance)}
        if not isinstance(raw, dict) or set(raw) != known:
            raise TypeError(f"keys differ: {sorted(known ^ set(raw))}")
        if raw["format"] != FORMAT:
            raise ValueError(f"it is of format {raw['format']}")
        parts = {
            "contributors": [Contributor(**item) for item in raw["contributors"]],
            "files": [DataFile(**item) for item in raw["files"]],
        }
        read = Provenance(**(raw | parts))
        _check(read)
        return read
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise VerificationError(
            f"{path} is not a provenance of format {FORMAT} ({error}); copy it again"
        ) from None


def _check(read: Provenance) -> None:
    """Raise TypeError or ValueError where a value cannot be meant."""
    wanted = {
        "format": int, "rows": int, "dim": int, "digest": str, "complete": bool, "config": dict,
        "source": dict, "skipped": list, "block_rows": list, "block_digests": list,
        "plan_changes": list, "audit": dict,
    }  # fmt: skip
    for name, kind in wanted.items():
        if not isinstance(getattr(read, name), kind):
            raise TypeError(f"{name} is {getattr(read, name)!r}, not {kind.__name__}")
    if not SHA256.fullmatch(read.digest):
        raise ValueError("digest must be a sha256 sum")
    if not read.complete:
        raise ValueError("it says that it is not complete")
    if not all(_whole(count) and count >= 0 for count in (read.rows, read.dim)):
        raise ValueError("rows and dim must be whole numbers, not negative and within int64")
    if read.dim >= 1 << 31:
        raise ValueError(f"dim {read.dim} is more than Arrow's lists can hold")
    whole = {"rows": int, "fingerprint": str, "name": str}
    if not all(isinstance(read.source.get(key), kind) for key, kind in whole.items()):
        raise TypeError("source must have a name, a fingerprint and rows")
    if not _whole(read.source["rows"]):
        raise ValueError("the source's rows must be within int64")
    if not all(_whole(id) for id in read.skipped):
        raise TypeError("skipped must be ids, whole numbers within int64")
    _check_contributors(read)
    _check_blocks(read)
    _check_files(read)


def _whole(value: Any) -> bool:
    """Whether ``value`` is a number that an int64 holds."""
    return isinstance(value, int) and not isinstance(value, bool) and value in INT64


def _check_contributors(read: Provenance) -> None:
    """Require text, numbers and a cycle where they belong."""
    for one in read.contributors:
        texts = (one.name, one.prior, one.weights_sha256, one.alignment_sha256)
        numbers = [n for n in (one.uniformity, one.r2_heldout) if n is not None]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"contributor {one.name!r} needs text as name, prior and sha256 sums")
        if not all(isinstance(number, float) or _whole(number) for number in numbers):
            raise TypeError(f"contributor {one.name!r} needs numbers as uniformity and r2_heldout")
        if not _whole(one.cycle):
            raise TypeError(f"contributor {one.name!r} needs a whole number as cycle")


def _check_blocks(read: Provenance) -> None:
    """Compare the two lists of blocks with each other."""
    if len(read.block_rows) != len(read.block_digests):
        raise ValueError("as many block_rows as block_digests are needed")
    if not all(_whole(rows) and rows >= 0 for rows in read.block_rows):
        raise TypeError("block_rows must be whole numbers")
    if not all(
        isinstance(digest, str) and SHA256.fullmatch(digest) for digest in read.block_digests
    ):
        raise TypeError("block_digests must be sha256 sums")


def _check_files(read: Provenance) -> None:
    """Require paths inside of the dataset, and that the files hold all blocks one after another."""
    end = 0
    for file in read.files:
        numbers = (file.rows, file.first_block, file.end_block)
        if not isinstance(file.path, str) or not all(isinstance(n, int) for n in numbers):
            raise TypeError(f"file entry {file} is malformed")
        if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
            raise ValueError(f"file path {file.path!r} leaves the dataset")
        if not end == file.first_block < file.end_block:
            raise ValueError(f"{file.path} begins with block {file.first_block}, expected {end}")
        end = file.end_block
    if end != len(read.block_rows):
        raise ValueError(f"the files hold {end} blocks, expected {len(read.block_rows)}")
