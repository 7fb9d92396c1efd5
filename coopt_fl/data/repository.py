"""Read the card and description of a downloaded repository of the Hugging Face hub."""

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
"""Descriptions that ``save_to_disk`` writes."""

ABOVE = 2
"""Levels above the folder of a configuration at which its repository's card is looked for."""


def stated_license(data: DataConfig) -> str:
    """Return the licence of the images that their repository states; "" if it states none."""
    if data.root is None or not PARTS.find("source", data.source).fact("reads"):
        return ""
    root = placed(data)
    if root.startswith(HUB):
        return _license(_front_matter(_kept_card(root)))
    if is_url(root):
        return ""
    folder = Path(root).parent if is_file(Path(root), DataError) else Path(root)
    stated = _license(_front_matter(folder / CARD))
    if not stated and not (folder / CARD).exists():
        for above in list(folder.parents)[:ABOVE]:
            if {"configs", "dataset_info"} & (card := _front_matter(above / CARD)).keys():
                stated = _license(card)
                break
    return stated or next(filter(None, (_license(_info(folder / name)) for name in INFO)), "")


def _license(description: dict[str, Any]) -> str:
    """Return the licence in a card's front matter or a description; "" if it is none to publish."""
    stated = description.get("license")
    if stated == "other":
        stated = description.get("license_name") or stated
    if isinstance(stated, list):
        stated = ", ".join(map(str, stated))
    return stated if isinstance(stated, str) and LICENCE.holds(stated) else ""


def _front_matter(card: Path | None) -> dict[str, Any]:
    try:
        return front_matter(card.read_text(errors="replace")) if card else {}
    except OSError:
        return {}


def front_matter(card: str) -> dict[str, Any]:
    """Return the YAML between a card's first two lines of dashes; {} if there is none."""
    try:
        _, text, _ = card.split("---\n", 2) if card.startswith("---\n") else ("", "", "")
        found = yaml.safe_load(text)
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
    """Return the cached card of a dataset on the hub; None if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    name = "/".join(url.removeprefix(HUB).split("/")[:2])
    found = try_to_load_from_cache(name, CARD, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None
