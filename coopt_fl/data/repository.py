"""What a repository of the Hugging Face hub says of itself, wherever it was downloaded to."""

import json
from pathlib import Path
from typing import Any

import yaml

from coopt_fl.config.places import HUB, is_url, placed
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.core.files import is_file
from coopt_fl.core.typed import LICENCE
from coopt_fl.registry import PARTS

CARD = "README.md"
INFO = ("dataset_info.json", "train/dataset_info.json")
"""What ``save_to_disk`` writes."""

ABOVE = 2
"""Folders above that of a configuration in which its repository's card may be."""


def stated_license(data: DataConfig) -> str:
    """Return the licence of the images that their repository states; "" where nothing is said."""
    if data.root is None or not PARTS.find("source", data.source).fact("reads"):
        return ""
    root = placed(data)
    if root.startswith(HUB):
        return _license(_front_matter(_kept_card(root)))
    if is_url(root):
        return ""
    folder = Path(root).parent if is_file(Path(root), DataError) else Path(root)
    said = _license(_front_matter(folder / CARD))
    if not said and not (folder / CARD).exists():
        for above in list(folder.parents)[:ABOVE]:
            if {"configs", "dataset_info"} & (card := _front_matter(above / CARD)).keys():
                said = _license(card)
                break
    return said or next(filter(None, (_license(_info(folder / name)) for name in INFO)), "")


def _license(told: dict[str, Any]) -> str:
    """Return the licence that a card or a description names, if it is one line."""
    said = told.get("license")
    if said == "other":
        said = told.get("license_name") or said
    if isinstance(said, list):
        said = ", ".join(map(str, said))
    return said if isinstance(said, str) and LICENCE.holds(said) else ""


def _front_matter(card: Path | None) -> dict[str, Any]:
    try:
        return front_matter(card.read_text(errors="replace")) if card else {}
    except OSError:
        return {}


def front_matter(card: str) -> dict[str, Any]:
    """Return what is between the first two lines of dashes; nothing where that is no YAML."""
    try:
        _, told, _ = card.split("---\n", 2) if card.startswith("---\n") else ("", "", "")
        found = yaml.safe_load(told)
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _info(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept_card(url: str) -> Path | None:
    """Return the card of a dataset on the hub that was downloaded with it."""
    from huggingface_hub import try_to_load_from_cache

    name = "/".join(url.removeprefix(HUB).split("/")[:2])
    found = try_to_load_from_cache(name, CARD, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None
