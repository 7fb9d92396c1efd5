"""Recognise which source can read a folder or a file of images."""

import os
from contextlib import suppress
from pathlib import Path

from coopt_fl.core.errors import DataError
from coopt_fl.core.files import is_file, is_folder
from coopt_fl.data.listing import listed
from coopt_fl.data.sources.hf import is_saved
from coopt_fl.data.sources.manifests import SUFFIXES as LISTS
from coopt_fl.data.sources.manifests import is_manifest
from coopt_fl.data.sources.parquet import has_parquet
from coopt_fl.data.sources.webdataset import has_tar


def source_of(place: Path) -> str:
    """Return the name of the source that can read a folder or a file; "" if none can."""
    if is_file(place, DataError):
        return "manifest" if is_manifest(place) else "webdataset" if has_tar(place) else ""
    if not is_folder(place, DataError):
        return ""
    if is_saved(place):
        return "hf"
    train = place / "train"
    beside = [where / f"metadata{suffix}" for where in (train, place) for suffix in LISTS]
    if any(is_file(one, DataError) and is_manifest(one) for one in beside):
        return "manifest"
    found = listed(train if is_folder(train, DataError) else place, _no_pack, skip=True)
    packs = [found.folder / os.fsdecode(path) for path in sorted(found.paths)]
    for source, holds in (("webdataset", has_tar), ("parquet", has_parquet)):
        if any(map(holds, packs)):
            return source
    if is_folder(train, DataError):
        return "imagefolder"
    return "manifest" if any(one.parent == place and is_manifest(one) for one in packs) else ""


def is_taken(place: Path) -> bool:
    """Tell whether a source can read a folder or file; False if it cannot be entered."""
    with suppress(DataError):
        return bool(source_of(place))
    return False


def _no_pack(path: bytes) -> str:
    name = Path(os.fsdecode(path))
    fine = has_parquet(name) or has_tar(name) or name.suffix.lower() in LISTS
    return "" if fine else "neither Parquet, a tar file nor a list"
