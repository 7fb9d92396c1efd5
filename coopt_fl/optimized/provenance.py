"""``provenance.json``: what an optimized dataset is, from what, by whom, and how to check it."""

import json
import platform
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from coopt_fl.config import to_dict
from coopt_fl.errors import VerificationError
from coopt_fl.optimized.manifest import check_manifest
from coopt_fl.schema import Config

FORMAT = 1


@dataclass(frozen=True)
class Contributor:
    """One participant's part in the dataset; ``participant`` in the files is its index."""

    name: str
    prior: str
    weights_sha256: str
    alignment_sha256: str
    uniformity: float
    r2_heldout: float
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
) -> Provenance:
    """Return the provenance of a dataset that is about to be published."""
    return Provenance(
        format=FORMAT,
        config=to_dict(config),
        source=source,
        contributors=contributors,
        reference=reference,
        plan_changes=plan_changes,
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
        check_manifest(read)
        return read
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise VerificationError(
            f"{path} is not a provenance of format {FORMAT} ({error}); copy it again"
        ) from None


def versions() -> dict[str, str]:
    """Return the versions of what determines the numbers."""
    packages = ("coopt-fl", "torch", "torchvision", "timm", "numpy", "scipy", "flwr", "ray")
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
