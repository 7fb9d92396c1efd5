"""What the smaller commands do with what a run left behind."""

from pathlib import Path
from typing import Any

from coopt_fl.config.load import data_from, from_tree
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress
from coopt_fl.core.remote import shown
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.optimized.read import dataset_folder, load
from coopt_fl.optimized.verify import verify


def train(
    dataset: Path, changes: list[str], out: Path | None, progress: Progress, devices: int | str
) -> dict[str, Any]:
    """Train a student on the optimized dataset in ``dataset``, with its configuration and changes.

    Args:
        dataset: a run directory or the dataset folder in it.
        changes: ``KEY=VALUE`` settings, such as ``student.epochs=5`` or where the images are now.
        out: where the checkpoint goes; None: ``students/MODEL`` beside the dataset.
        progress: told of every epoch.
        devices: how many, or "auto".
    """
    folder = dataset_folder(dataset)
    config = from_tree(read_provenance(folder).config, changes, str(dataset))
    out = out or folder.parent / "students" / config.student.model.replace(":", "-")
    return train_on(folder, config, out, progress, devices)


def train_on(
    folder: Path, config: Config, out: Path, progress: Progress, devices: int | str
) -> dict[str, Any]:
    """Train on the dataset in ``folder``; continue a training that was stopped in ``out``."""
    from coopt_fl.students import train_student

    trained = train_student(
        load(folder, mmap=True),
        config.data,
        config.student,
        config.runtime,
        out,
        config.seed,
        devices=devices,
        progress=lambda point, epochs: progress.show(
            "student", point.epoch, epochs, "epochs", f"loss {point.loss:.4f}"
        ),
    )
    return {
        "checkpoint": str(trained.checkpoint),
        "model": config.student.model,
        "epochs": trained.epochs,
        "seconds": trained.seconds,
        "loss_per_epoch": trained.loss_per_epoch,
    }


def probe(checkpoint: Path, changes: list[str]) -> dict[str, Any]:
    """Judge the student in ``checkpoint`` by both probes, on the data that it was trained on.

    Args:
        checkpoint: a ``.pt`` file.
        changes: ``data.KEY=VALUE`` settings to judge it elsewhere.

    Raises:
        ConfigError: ``checkpoint`` is not one, or a change is not of the data.
    """
    from coopt_fl.students import load_student, probe_methods

    student = load_student(checkpoint)
    data = _data(student.meta["data"], changes, str(checkpoint))
    return {"checkpoint": str(checkpoint), "accuracy": probe_methods(student, data)}


def _data(tree: dict[str, Any], changes: list[str], name: str) -> DataConfig:
    """Return the data settings in ``tree`` with ``changes``, which may concern nothing else."""
    others = [change for change in changes if not change.startswith("data.")]
    if others:
        raise ConfigError(
            f"a probe depends on the data alone, so {', '.join(others)} would change nothing; "
            "give only data.KEY=VALUE"
        )
    return data_from(tree, changes, name)


def inspect(dataset: Path) -> dict[str, Any]:
    """Verify the optimized dataset in ``dataset``; ``problems`` is empty when all is right."""
    folder = dataset_folder(dataset)
    provenance, problems = verify(folder)
    return {"path": str(folder), "provenance": provenance.as_dict(), "problems": problems}


REPORT_NEEDS = ("jinja2", "matplotlib", "openTSNE")
"""What the extra ``coopt-fl[report]`` brings."""


def report(runs: list[Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Write one HTML page about run directories.

    Args:
        runs: what ``coopt run``, ``centralized`` or ``pretrain`` wrote.
        out: the HTML file.
        progress: told of every run.

    Raises:
        ConfigError: a directory holds no finished run, or a package is not installed.
    """
    try:
        from coopt_fl.report.page import write_report
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in REPORT_NEEDS:
            raise
        raise ConfigError(
            f"a report needs {error.name}, which is not installed: pip install 'coopt-fl[report]'"
        ) from None
    return write_report(runs, out, progress)


def publish_shards(config: Config, url: str, progress: Progress) -> dict[str, Any]:
    """Publish the images of ``config.data`` as shards for participants that do not hold them.

    Args:
        config: of the run that they are for.
        url: a path, ``file://``, or ``s3://`` and the like.
        progress: told of every file.
    """
    from coopt_fl.data import make_blocks, make_units, open_source, shared_set
    from coopt_fl.data.shards import Layout, publish

    source = open_source(config.data)
    rows, fraction = config.optimize.block_rows, config.audit.fraction
    blocks = make_blocks(source.ids, rows, config.seed)
    shared = shared_set(source.ids, config.shared.size, config.seed)
    layout = Layout(make_units(blocks, fraction, config.seed), shared, rows, fraction)
    place = url if "://" in url else str(Path(url).expanduser().resolve())
    with progress.phase("shards"):
        published = publish(
            place,
            source,
            layout,
            config.data.on_error,
            lambda done, total: progress.show("shards", done, total, "files"),
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
    }
