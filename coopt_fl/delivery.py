"""What the commands that share data do: publish shards, push and pull datasets."""

import re
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coopt_fl.calls import Chosen, Settings, Shown, changes_of, name_of, telling
from coopt_fl.config.load import from_tree, tree_of
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import expanded, require_utf8, understood
from coopt_fl.core.progress import Progress
from coopt_fl.core.remote import shown
from coopt_fl.core.runtime import is_first_process
from coopt_fl.data import open_source
from coopt_fl.data.shards import publish
from coopt_fl.data.source import copy_streams
from coopt_fl.federation.decisions import layout_of
from coopt_fl.federation.groups import groups_of
from coopt_fl.optimized import transfer
from coopt_fl.optimized.huggingface import download, repository, upload
from coopt_fl.optimized.licences import licence_of, statements
from coopt_fl.optimized.read import dataset_folder
from coopt_fl.optimized.transfer import STUDENT
from coopt_fl.registry import PARTS
from coopt_fl.students.checkpoint import CHECKPOINT, read_checkpoint, shareable


def publish_shards(
    config: Chosen = "digits",
    settings: Settings = (),
    *,
    url: str,
    progress: Shown = "normal",
) -> dict[str, Any]:
    """Publish the images of a run as shards for participants that do not hold them.

    Args:
        config: the configuration of that run.
        settings: changes to it.
        url: destination: a path, ``file://``, or ``s3://`` and the like.
        progress: see :data:`Shown`.
    """
    loaded = from_tree(tree_of(config), changes_of(settings), name_of(config))
    place = _absolute(url)
    with telling(progress) as display, display.phase("shards"):
        limit = loaded.data.limit or 0
        copy_streams(
            loaded.data,
            lambda split, done: display.show(
                f"copy {split}", done, limit, "image", f"{done:,} read"
            ),
        )
        source = open_source(loaded.data)
        for note in source.notes:
            display.warn(note)
        total = len(source)
        groups = groups_of(
            loaded, source, lambda done: display.show("regions", done, total, "image")
        )
        layout = layout_of(loaded, source.ids, groups)
        published = publish(
            place,
            source,
            layout,
            loaded.data.on_error,
            lambda done, total: display.show("shards", done, total, "file"),
        )
    files = published.manifest.files
    return {
        "url": shown(place),
        "manifest_sha256": published.manifest_sha256,
        "source": source.name,
        "fingerprint": source.fingerprint,
        "rows": len(source),
        "files": len(files),
        "written": published.written,
        "bytes": sum(file.bytes for file in files.values()),
        "owners": layout.by_owner(),
    }


def push(run: str | Path, url: str, *, progress: Shown = "normal") -> dict[str, Any]:
    """Push a dataset with its card, its Croissant description and its student to a URL.

    The same call continues a push that was stopped, and adds a student that was trained since.

    Args:
        run: a run directory, or the dataset folder in it.
        url: destination: a path, ``file://``, ``s3://`` and the like, or ``hf://USER/NAME``.
        progress: see :data:`Shown`.

    Raises:
        VerificationError: the dataset is damaged.
        OutputError: ``url`` cannot be written, or holds another dataset.
    """
    folder, hub = dataset_folder(Path(run)), repository(url)
    student = folder.parent / "student" / CHECKPOINT
    content = shareable(student) if folder.name == "dataset" and student.is_file() else None
    extra = {STUDENT: content} if content else {}
    with telling(progress) as display, display.phase("push"), TemporaryDirectory() as staging:
        place = staging if hub else _elsewhere(_absolute(url), Path(run), folder)
        done = transfer.push(folder, place, extra, partial(_files, display, "push"))
        if hub:
            upload(staging, hub)
        licence = licence_of(statements(done.provenance))
        for label in licence.labels:
            display.warn(label)
        own = read_checkpoint(student)["meta"].get("license") if content else licence.short
        if own != licence.short:
            display.warn(f"The student beside the dataset has another licence: {own}")
    return _transferred(url if hub else place, done) | {"license": licence.shown}


def pull(url: str, *, out: str | Path | None = None, progress: Shown = "normal") -> dict[str, Any]:
    """Pull a dataset that was pushed to a URL, and verify it; continue a pull that was stopped.

    Args:
        url: see :func:`push`.
        out: the output directory, which becomes a run directory; None: ``runs/NAME``, NAME being
            the last part of the URL.
        progress: see :data:`Shown`.

    Raises:
        DataError: there is no finished dataset, or it cannot be read.
        VerificationError: the files differ from those that were pushed.
        OutputError: ``out`` holds another dataset, or cannot be written.
    """
    hub, out = repository(url), Path(out) if out else _place_of(url)
    require_utf8(out, "--out", OutputError)
    with telling(progress) as display, display.phase("pull"):
        place = download(hub) if hub else _absolute(url)
        done = transfer.pull(place, out, partial(_files, display, "pull"))
    with understood(out / "dataset" / "provenance.json"):
        source = done.provenance.config["data"]["source"]
    known = {"license": licence_of(statements(done.provenance)).shown, "out": str(out)}
    return _transferred(url, done) | known | {"needs_root": _needs_root(source)}


def _needs_root(source: str) -> bool:
    """Tell whether a training on a dataset of ``source`` must be given ``data.root``."""
    return PARTS.has("source", source) and bool(PARTS.find("source", source).fact("needs_root"))


def pulled(dataset: str, progress: Shown) -> Path:
    """Return the directory of a dataset; one at a URL is pulled, by the first process alone."""
    if "://" not in dataset:
        return Path(dataset)
    if is_first_process():  # the others are started when the training begins
        pull(dataset, progress=progress)
    return _place_of(dataset)


def _place_of(url: str) -> Path:
    """Return the default output directory of a dataset that is pulled from ``url``."""
    return Path("runs", url.rstrip("/").rpartition("/")[2])


def _files(display: Progress, name: str, done: int, total: int) -> None:
    display.show(name, done, total, "file")


def _transferred(url: str, done: transfer.Transferred) -> dict[str, Any]:
    files = done.manifest.files
    return {
        "url": shown(url),
        "digest": done.manifest.digest,
        "files": len(files),
        "written": done.written,
        "bytes": sum(file.bytes for file in files.values()),
        "student": STUDENT in files,
    }


def _absolute(url: str) -> str:
    """Return a path made absolute, or a URL as it is; raise ConfigError if it is neither."""
    require_utf8(url, "the URL", ConfigError)
    if not url.strip() or re.match(r"\w{2,}:/(?!/)", url):
        raise ConfigError(
            f"{url!r} is neither a path nor a URL: give a path, or a URL such as s3://BUCKET/NAME"
        )
    return url if "://" in url else str(expanded(url).resolve())


def _elsewhere(place: str, run: Path, dataset: Path) -> str:
    """Return ``place``; raise ConfigError if a push there would change the run itself."""
    here = Path(place.removeprefix("file://"))
    if here.is_absolute() and (
        here.is_relative_to(run.resolve()) or here == dataset.resolve().parent
    ):
        raise ConfigError(f"{place} is inside the run to be pushed; give a place outside of {run}")
    return place
