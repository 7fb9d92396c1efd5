"""The page: sections and figures put into the template, and written as one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coopt_fl.core.files import atomic, make_folder
from coopt_fl.core.progress import Progress
from coopt_fl.report import tables
from coopt_fl.report.collect import Run, collect
from coopt_fl.report.curves import accuracy_figures
from coopt_fl.report.parts import part
from coopt_fl.report.section import section
from coopt_fl.report.svg import variable

Values = dict[str, Any]


def write_report(directories: Sequence[Path], out: Path, progress: Progress) -> Values:
    """Write the report of run directories to ``out``, and return its path, size and runs.

    The same directories give the same page, byte for byte, with equal versions.

    Raises:
        ConfigError: a directory holds no finished run.
        VerificationError: an optimized dataset is damaged.
        OutputError: ``out`` cannot be written.
    """
    runs = collect(directories)
    html = render(runs, progress).encode()
    make_folder(out.parent)
    with atomic(out) as file:
        file.write(html)
    return {"report": str(out), "bytes": len(html), "runs": [run.name for run in runs]}


def render(runs: Sequence[Run], progress: Progress) -> str:
    """Return the page as HTML."""
    known, sections = tables.entries(runs), []
    for run in runs:
        with progress.phase(f"report of {run.name}"):
            sections.append(section(run, [one for one in known if one.run == run.name]))
    template = _environment().get_template("page.html.j2")
    return template.render(
        title=_title(runs),
        lead=_lead(runs),
        entries=known,
        shared_devices=tables.shared_devices(known),
        sources=sorted({tables.images(run) for run in runs}),
        curves=part(lambda: accuracy_figures(known)),
        faster=part(lambda: tables.speed_ups(runs)),
        sections=sections,
    )


def _environment() -> Environment:
    """Return an environment that escapes everything: names and paths come from outside."""
    environment = Environment(
        loader=PackageLoader("coopt_fl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "colour": variable}
    return environment


def _percent(value: float | None, digits: int = 1) -> str:
    return _or_dash(value, f".{digits}%")


def _number(value: float | None, digits: int = 1) -> str:
    return _or_dash(value, f",.{digits}f")


def _or_dash(value: float | None, style: str) -> str:
    """Return a number, or a dash where nobody measured it."""
    return "–" if value is None else format(value, style).replace("-", "−")


def _title(runs: Sequence[Run]) -> str:
    """Return the page's heading."""
    if len(runs) > 1:
        return f"{len(runs)} runs, side by side"
    run = runs[0]
    source = str(run.config["data"]["source"])
    if run.provenance is None:
        return f"{source}, {run.student.first.objective}" if run.student else source
    people = len(run.provenance.contributors)
    return f"{source}, optimized by {f'{people} participants' if people > 1 else 'one prior'}"


def _lead(runs: Sequence[Run]) -> str:
    """Return what the page is about in one or two sentences."""
    if len(runs) > 1:
        return "What each took and what its student is worth, then every run by itself."
    known, student, said = runs[0].provenance, runs[0].student, []
    if known:
        people = len(known.contributors)
        who = f"{people} pretrained priors" if people > 1 else "One pretrained prior"
        said.append(f"{who} assigned a target to each of {known.rows:,} images.")
    accuracy = student and student.mean("accuracy")
    if student and accuracy is not None:
        start = student.mean("random_accuracy")
        before = "" if start is None else f", up from {start:.1%} untrained"
        said.append(f"A linear probe of the student gets {accuracy:.1%}{before}.")
    return " ".join(said)
