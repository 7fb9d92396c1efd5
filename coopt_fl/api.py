"""One function for each command that makes or uses runs, for the command line and for programs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from coopt_fl.calls import Chosen, Settings, Shown, changes_of, job_of, telling
from coopt_fl.config.load import data_from, from_tree
from coopt_fl.config.overrides import changed
from coopt_fl.config.schema import DataConfig
from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.extras import install_hint
from coopt_fl.core.files import expanded, is_folder, understood
from coopt_fl.core.log import logged
from coopt_fl.core.runtime import pick_device
from coopt_fl.data import OwnSource
from coopt_fl.data.recognise import source_of
from coopt_fl.delivery import pulled
from coopt_fl.federation.centralized import optimize_centrally, single
from coopt_fl.federation.job import Summary, train_on, whole_job
from coopt_fl.optimized.licences import licence_of, statements
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.optimized.read import OptimizedDataset, dataset_folder, load
from coopt_fl.optimized.verify import verify
from coopt_fl.plugins import OUTSIDE
from coopt_fl.priors import Prior, load_prior
from coopt_fl.registry import PARTS
from coopt_fl.report import console as show
from coopt_fl.report.terminal import PIPE_WIDTH
from coopt_fl.students import export as exports
from coopt_fl.students.checkpoint import (
    CHECKPOINT,
    LoadedStudent,
    checkpoint_file,
    load_student,
    read_checkpoint,
)
from coopt_fl.students.classifier import METHODS
from coopt_fl.students.doubts import tell_doubts
from coopt_fl.students.embed import Embedded, embed_source
from coopt_fl.students.evaluate import Evaluation, evaluate_student
from coopt_fl.students.judgements import keep_judgement
from coopt_fl.students.pretrain import pretrain as pretrain_student
from coopt_fl.students.probe import Judge, probing

REPORT_NEEDS = ("jinja2", "matplotlib", "openTSNE")
"""The modules that the extra ``report`` installs."""


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        out: its output directory.
        summary: the content of ``summary.json`` in it.
    """

    out: Path
    summary: Summary

    def __repr__(self) -> str:
        accuracy = self.summary["student"]["probe_accuracy"]
        return f"Result({str(self.out)!r}, probe accuracy {accuracy})"

    @property
    def dataset(self) -> OptimizedDataset:
        """The optimized dataset, as :func:`coopt_fl.load` opens it."""
        return load(self.out)

    @property
    def student(self) -> LoadedStudent:
        """The trained student."""
        return load_student(self.out / "student" / CHECKPOINT, self.summary["student"]["model"])

    def _repr_html_(self) -> str:
        """Show the summary as tables in a notebook."""
        console = Console(record=True, file=io.StringIO(), width=PIPE_WIDTH, force_jupyter=False)
        console.print(show.summary(self.summary))
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def run(
    config: Chosen = "digits",
    settings: Settings = (),
    *,
    out: str | Path | None = None,
    participants: Sequence[Mapping[str, Any]] | None = None,
    source: OwnSource | None = None,
    progress: Shown = "normal",
) -> Result:
    """Optimize the data with simulated participants on this host, train a student and probe it.

    A call with the same settings and ``out`` continues a run that was stopped.

    Args:
        config: the configuration of the run.
        settings: changes to it.
        out: the output directory; None: ``runs/NAME``, with part of the dataset key appended if
            settings of the dataset differ from those of the configuration NAME.
        participants: {"name": ..., "prior": ...} of each, replacing those in ``config``; a prior
            is a specification, or your own :class:`Prior`.
        source: your own images, see :func:`coopt_fl.data.from_arrays`, replacing those in
            ``config``.
        progress: see :data:`Shown`.

    Raises:
        CooptError: the run failed; ``out`` keeps what was finished.
    """
    from coopt_fl.federation.simulation import simulate

    with (
        telling(progress) as display,
        job_of(config, settings, out, participants, source, display) as job,
    ):
        done = whole_job(
            job.config,
            job.out,
            display,
            lambda: simulate(job.config, job.out, display),
            keep=job.keep_source,
        )
    return Result(job.out, done)


def centralized(
    config: Chosen = "digits",
    settings: Settings = (),
    *,
    prior: str | Prior,
    out: str | Path | None = None,
    source: OwnSource | None = None,
    progress: Shown = "normal",
) -> Result:
    """Like :func:`run`, with one prior for all samples and without Flower: the baseline.

    Args:
        config: the configuration of the run.
        settings: changes to it.
        prior: a participant's name, the specification of a prior, or your own prior.
        out: the output directory; None: ``runs/NAME-centralized-PRIOR``, see :func:`run`.
        source: see :func:`run`.
        progress: see :data:`Shown`.

    Raises:
        CooptError: see :func:`run`.
    """
    if isinstance(prior, Prior):
        people, chosen = [{"name": "central", "prior": prior}], "central"
        suffix = f"centralized-{_plain(prior.id.partition('@')[0])}"
    else:
        people, chosen, suffix = None, prior, f"centralized-{_plain(prior)}"
    with (
        telling(progress) as display,
        job_of(config, settings, out, people, source, display, lambda _: suffix) as job,
    ):
        alone = single(job.config, chosen)
        done = whole_job(
            alone,
            job.out,
            display,
            lambda: optimize_centrally(alone, job.out, display),
            keep=job.keep_source,
        )
    return Result(job.out, done)


def pretrain(
    config: Chosen = "digits",
    settings: Settings = (),
    *,
    objective: str | None = None,
    dataset: str | Path | None = None,
    out: str | Path | None = None,
    source: OwnSource | None = None,
    seeds: int = 1,
    probe_every: int = 1,
    devices: int | Literal["auto"] = "auto",
    against: str | Path | None = None,
    progress: Shown = "normal",
) -> dict[str, Any]:
    """Train a student without labels, by our regression or by a self-supervised baseline.

    Args:
        config: a configuration with the data, the student, and the first seed.
        settings: changes to it.
        objective: the training objective; None: ``student.objective``.
        dataset: a run directory, for an objective on targets.
        out: the output directory; None: ``runs/NAME-OBJECTIVE``, see :func:`run`.
        source: see :func:`run`.
        seeds: number of seeds, trained one after another.
        probe_every: epochs between two probes.
        devices: number of devices, or "auto". For each but the first, the running program is
            started again.
        against: output directory of a baseline's pretraining, to report the speed-up over it.
        progress: see :data:`Shown`.

    Returns:
        The result of :func:`coopt_fl.students.pretrain.pretrain`.
    """
    changes = changes_of(settings) + ([f"student.objective={objective}"] if objective else [])
    with (
        telling(progress) as display,
        job_of(
            config, changes, out, None, source, display, lambda one: one.student.objective
        ) as job,
    ):
        job.keep_source()
        return pretrain_student(
            job.config,
            Path(dataset) if dataset else None,
            job.out,
            display,
            seeds=seeds,
            watch_every=probe_every,
            count=devices,
            against=Path(against) if against else None,
        )


def train(
    dataset: str | Path,
    settings: Settings = (),
    *,
    out: str | Path | None = None,
    devices: int | Literal["auto"] = "auto",
    progress: Shown = "normal",
) -> dict[str, Any]:
    """Train a student on an optimized dataset; the same call continues a stopped training.

    Args:
        dataset: a run directory, the dataset folder in it, or a URL that a dataset was pushed to,
            which is first pulled as by :func:`pull`.
        settings: changes to its configuration, such as the new place of the images.
        out: the folder for the checkpoint; None: ``students/MODEL`` beside the dataset.
        devices: number of devices, or "auto". For each but the first, the running program is
            started again.
        progress: see :data:`Shown`.

    Returns:
        ``checkpoint``, ``model``, ``epochs``, ``seconds`` (of which ``earlier_seconds`` before this
        call), ``loss_per_epoch``, and the ``run`` whose report shows the student, or None.
    """
    changes = changes_of(settings)
    sections = ("data", "student", "runtime", "seed", "plugins", "tracker")
    if others := [one for one in changes if one.partition("=")[0].split(".")[0] not in sections]:
        raise ConfigError(
            f"a training on finished targets depends on {', '.join(sections)} alone, so "
            f"{', '.join(others)} would change nothing; leave it out"
        )
    folder = dataset_folder(pulled(str(dataset), progress))
    known, here = read_provenance(folder).config, folder.parent / "summary.json"
    with understood(folder / "provenance.json"):
        tree = {key: known[key] for key in ("seed", "data", "runtime", "student", "probe")}
        unknown_place = tree["data"]["root"] is None  # the provenance, being shared, leaves it out
    if unknown_place and here.is_file():
        with understood(here):
            tree["data"]["root"] = typed.read(here, dict[str, Any])["config"]["data"]["root"]
    config = from_tree(tree, changes, str(dataset), whole=False)
    _refuse_import("data.source", config.data.source, changes, folder)
    _refuse_import("student.model", config.student.model, changes, folder)
    students = folder.parent / "students"
    place = Path(out) if out else students / config.student.model.replace(":", "-")
    with telling(progress) as display, logged(place, display), display.phase("student"):
        trained = train_on(folder, config, place, display, devices)
    of_run = place.parent == students and folder.name == "dataset"
    return trained | {"run": str(folder.parent) if of_run else None}


def probe(
    checkpoint: str | Path, settings: Settings = (), *, progress: Shown = "normal"
) -> dict[str, Any]:
    """Judge the student in ``checkpoint`` by both probes, on the data that it was trained on.

    Args:
        checkpoint: a ``.pt`` file, or the directory of a run or training that contains one.
        settings: ``data.KEY``, to judge it on other images; ``plugins`` and ``student.model``, if
            code from outside built it.
        progress: see :data:`Shown`.

    Returns:
        ``checkpoint``; ``accuracy`` in [0, 1] on the test images by name of the classifier, None
        without labels; ``classifiers``: what each of them is; ``kept``: the file that now has the
        accuracies beside the checkpoint, or None.

    Raises:
        ConfigError: ``checkpoint`` is not one, or ``settings`` change anything else.
    """
    path = checkpoint_file(checkpoint)
    student, data = _to_judge(path, settings, "a probe")
    with telling(progress) as display, display.phase("probe"):
        tell_doubts(data, display)
        accuracy = Judge(data, told=probing(display, "the student")).accuracies(student)
    kept = keep_judgement(path, data, accuracy)
    found = {"checkpoint": str(path), "accuracy": accuracy, "classifiers": METHODS}
    return found | {"kept": kept and str(kept)}


def evaluate(
    checkpoint: str | Path,
    settings: Settings = (),
    *,
    fine_tune: int = 5,
    progress: Shown = "normal",
) -> Evaluation:
    """Judge the student in ``checkpoint`` as a classifier in several ways.

    Args:
        checkpoint: see :func:`probe`.
        settings: see :func:`probe`.
        fine_tune: epochs of fine-tuning the whole student on the labels; 0: none.
        progress: see :data:`Shown`.

    Raises:
        ConfigError: ``checkpoint`` is not one, or ``settings`` change anything else.
        DataError: the images have no labels.
    """
    path = checkpoint_file(checkpoint)
    student, data = _to_judge(path, settings, "an evaluation")
    with telling(progress) as display:
        return evaluate_student(student, data, fine_tune, display)


def embed(
    model: str | Path,
    source: str,
    settings: Settings = (),
    *,
    out: str | Path,
    split: str = "train",
    progress: Shown = "normal",
) -> Embedded:
    """Write the embeddings of a source's images as a Parquet file; continue a stopped call.

    Args:
        model: a student's checkpoint, see :func:`probe`, or the specification of a prior.
        source: a value of ``data.source``, or a folder of image or Parquet files.
        settings: other keys of ``data``, such as ``data.root``; ``plugins``.
        out: the file to write, with the columns ``id``, ``image`` (its file, or the row of one),
            ``embedding`` (float32, all of one length), and ``label`` if the images have labels.
        split: "train" or "test".
        progress: see :data:`Shown`.

    Raises:
        ConfigError: a setting is about something else than the images.
        DataError: an image cannot be read, and ``data.on_error`` is not "skip".
        OutputError: ``out`` exists with other content, or cannot be written.
        PriorError: there is no such model.
    """
    changes = changes_of(settings)
    if others := [one for one in changes if not one.startswith(("data.", "plugins="))]:
        raise ConfigError(f"embeddings depend on data.KEY alone: leave out {', '.join(others)}")
    data = data_from(_images(source), changes, "embed")
    if Path(model).exists():
        model = f"checkpoint:{checkpoint_file(model).resolve()}"
    with telling(progress) as display, display.phase("embed"):
        prior = load_prior(str(model), pick_device())
        return embed_source(prior, data, split, expanded(out), display)


def export(
    checkpoint: str | Path,
    settings: Settings = (),
    *,
    to: str,
    out: str | Path,
    progress: Shown = "normal",
) -> exports.Exported:
    """Export the student in ``checkpoint`` to another tool's format, and verify its features.

    Args:
        checkpoint: see :func:`probe`.
        settings: ``plugins`` and ``student.model``, if code from outside built the student.
        to: "timm", "torchvision" or "onnx", see docs/export.md.
        out: the folder for the files.
        progress: see :data:`Shown`.

    Raises:
        ConfigError: it cannot be exported to ``to``; the message says to which it can.
    """
    path, changes = checkpoint_file(checkpoint), changes_of(settings)
    if others := [one for one in changes if not one.startswith(("plugins=", "student.model="))]:
        raise ConfigError(
            "an export depends on plugins and student.model alone: leave out " + ", ".join(others)
        )
    from_tree({}, changes, str(path), whole=False)  # imports the plug-ins
    student = load_student(path, changed(changes, "student.model"))
    with telling(progress) as display, display.phase("export"):
        return exports.export_student(student, path, to, expanded(out))


def inspect(dataset: str | Path) -> dict[str, Any]:
    """Verify an optimized dataset, given its run directory or its folder.

    Returns:
        ``path``, ``provenance``, ``license``, and ``problems``, which is empty if it is intact.
    """
    folder = dataset_folder(Path(dataset))
    provenance, problems = verify(folder)
    return {
        "path": str(folder),
        "provenance": asdict(provenance),
        "license": licence_of(statements(provenance)).shown,
        "problems": problems,
    }


def write_report(
    runs: Sequence[str | Path], *, out: str | Path = "report.html", progress: Shown = "normal"
) -> dict[str, Any]:
    """Write one HTML page about one or several runs.

    Args:
        runs: output directories of :func:`run`, :func:`centralized` or :func:`pretrain`.
        out: the HTML file to write.
        progress: see :data:`Shown`.

    Raises:
        ConfigError: a directory holds no finished run, or a package is not installed.
    """
    try:
        from coopt_fl.report.page import write_report as write
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in REPORT_NEEDS:
            raise
        raise ConfigError(
            f"a report needs {error.name}, which is not installed: {install_hint('report')}"
        ) from None
    with telling(progress) as display:
        return write([Path(one) for one in runs], Path(out), display)


def _to_judge(path: Path, settings: Settings, what: str) -> tuple[LoadedStudent, DataConfig]:
    """Return a student, and the data that it was trained on with the changes in ``settings``."""
    changes = changes_of(settings)
    model = changed(changes, "student.model")
    changes = [one for one in changes if not one.startswith("student.model=")]
    if others := [one for one in changes if not one.startswith(("data.", "plugins="))]:
        raise ConfigError(
            f"{what} depends on the data alone, so {', '.join(others)} would change nothing; "
            "give data.KEY=VALUE, and plugins or student.model if code from outside built it"
        )
    data = data_from(read_checkpoint(path)["meta"]["data"], changes, str(path))
    _refuse_import("data.source", data.source, changes, path)
    return load_student(path, model), data


def _images(source: str) -> dict[str, str]:
    """Return the keys of ``data`` for the name of a source, or for a folder of images."""
    folder = expanded(source)
    if not is_folder(folder, DataError) or PARTS.has("source", source):
        return {"source": source}
    return {"source": source_of(folder) or "imagefolder", "root": str(folder.resolve())}


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _refuse_import(key: str, name: str, changes: Sequence[str], path: Path) -> None:
    """Raise ConfigError if a function to import is named by a file and not by the user."""
    if name.startswith(OUTSIDE) and changed(changes, key) != name:
        raise ConfigError(
            f"{path} names {name}, which is not imported just because a file names it: if you "
            f"trust it, give {key}={name}"
        )
