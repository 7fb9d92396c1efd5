"""``coopt config --fit``: a configuration for the images at hand, with a reason for each value."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coopt_fl.config.commented import commented
from coopt_fl.config.load import from_tree, read_tree
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError, DataError, OutputError
from coopt_fl.core.files import atomic, is_file, is_folder, make_folder
from coopt_fl.core.runtime import pick_device
from coopt_fl.data import open_source
from coopt_fl.data.recognise import is_taken, source_of
from coopt_fl.data.source import NoSplitError
from coopt_fl.data.sources.folders import is_whole
from coopt_fl.ops.sizes import Images, choose, doubts
from coopt_fl.students.images import shorter_edges, spread_ids

FEWEST = 8
"""Fewest images: the minimum of ``shared.size``."""


def fit(folder: Path, out: Path | None, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Write a configuration for the images in ``folder``; return what was chosen and why.

    Args:
        folder: Images in any form that a source takes: a tree with ``train/`` or without splits,
            Parquet files, tar shards, a list of files, what ``save_to_disk`` wrote, a repository of
            the hub.
        out: The YAML file; None for one in the current directory, named after the folder.
        name: The configuration that gives the participants and all keys that are not fitted.
        overrides: ``KEY=VALUE``: values to keep; the others are fitted to them.

    Returns:
        ``path``, ``images`` (what was seen), ``values`` and ``reasons`` by key, ``warnings``, and
        the command to run ``next``.

    Raises:
        ConfigError: The file exists or its name is not one of YAML, or ``overrides`` are wrong.
        DataError: There are no images, or fewer than 8.
    """
    out = _free(out or Path(f"{_plain(folder.resolve().name)}.yaml"))
    tree, asked = read_tree(name, overrides), {one.partition("=")[0] for one in overrides}
    if given := asked & {"data.source", "data.root"}:
        raise ConfigError(f"--fit {folder} says where the images are: leave out {', '.join(given)}")
    tree["data"] = {**(tree.get("data") or {}), **_where(folder)}
    config = from_tree(tree, (), name, whole=False)  # its sizes may fit only other data
    images = look(config.data)
    choices = choose(images, config, asked, gpu=pick_device().type == "cuda")
    for key, choice in choices.items():
        _set(tree, key, choice.value)
    warnings = list(doubts(images, from_tree(tree, (), name)))
    reasons = {key: choice.reason for key, choice in choices.items() if choice.reason}
    then = f"coopt run {shlex.quote(str(out))}"
    text = commented(tree, reasons, "\n".join(["Use this by", f"  {then}", *warnings]))
    make_folder(out.parent)
    with atomic(out) as file:
        file.write(text.encode())
    return {
        "path": str(out),
        "images": {key: value for key, value in vars(images).items() if key != "data"},
        "values": {key: choice.value for key, choice in choices.items()},
        "reasons": reasons,
        "warnings": warnings,
        "next": then,
    }


def look(data: DataConfig) -> Images:
    """Count the images of both splits, and read up to 64 to see how large they are.

    Raises:
        DataError: There are fewer than 8, or none of those looked at can be read.
    """
    source = open_source(data)
    if len(source) < FEWEST:
        raise DataError(
            f"{data.root} has {len(source)} images to train on; add some: a run needs at least "
            f"{FEWEST}, and some hundred to learn anything"
        )
    try:
        tested = len(open_source(data, "test"))
    except NoSplitError:
        tested = 0
    edges = shorter_edges(source)
    unreadable = len(spread_ids(source)) - len(edges)
    return Images(data, len(source), tested, int(np.median(edges)), unreadable)


def _free(out: Path) -> Path:
    """Return ``out`` if it is free and a name that commands take for a configuration."""
    if out.suffix not in (".yaml", ".yml") or "=" in str(out):
        raise ConfigError(f"--out {out} must end with .yaml, and have no '=' in it")
    if is_file(out, OutputError) or is_folder(out, OutputError):
        raise ConfigError(f"{out} is there already: name another file by --out, or delete it")
    return out


def _plain(name: str) -> str:
    """Return the name of a folder, changed so that it needs no quoting in a shell."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "images"


def _where(folder: Path) -> dict[str, str]:
    """Return ``source`` and ``root`` of the images in ``folder``, which may be a file.

    Raises:
        DataError: It is one split, or has its splits under other names or in a folder below.
    """
    if source := source_of(folder):
        whole = folder.parent.resolve() / folder.name if folder.is_file() else folder.resolve()
        return {"source": source, "root": str(whole)}
    if not is_folder(folder, DataError):
        raise DataError(f"{folder} is not a folder; give the one that holds the images")
    if is_folder(folder.resolve().parent / "train", DataError):
        raise DataError(f"{folder} is one split: give the folder that holds it")
    for below in sorted(folder.iterdir()):
        if is_taken(below):
            raise DataError(f"{folder} has no images of its own; try --fit {below}")
    is_whole(folder)  # raises DataError if not
    return {"source": "imagefolder", "root": str(folder.resolve())}


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a tree, whose sections may be missing or null."""
    *sections, last = key.split(".")
    for section in sections:
        tree[section] = tree.get(section) or {}
        tree = tree[section]
    tree[last] = value
