"""Rendering the report from values, figures and templates into one HTML file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

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

    With equal package versions, the same directories give the same page, byte for byte.

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
        runs=runs,
        settings=tables.differences(runs),
        entries=known,
        shared_devices=tables.shared_devices(known),
        sources=sorted({tables.images(run) for run in runs}),
        curves=part(lambda: accuracy_figures(known)),
        faster=part(lambda: tables.speed_ups(runs)),
        sections=sections,
    )


def _environment() -> Environment:
    """Return a Jinja environment that escapes all values, because names and paths are untrusted."""
    environment = Environment(
        loader=PackageLoader("coopt_fl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {"percent": _percent, "number": _number, "duration": _duration, "colour": variable}
    environment.filters |= own | {"prose": _prose}
    return environment


def _prose(sentence: str) -> Markup:
    """Return a sentence as HTML, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _percent(value: float | None, digits: int = 1) -> str:
    return _or_dash(value, f".{digits}%")


def _number(value: float | None, digits: int = 1) -> str:
    return _or_dash(value, f",.{digits}f")


def _or_dash(value: float | None, style: str) -> str:
    """Return a formatted number, or a dash for None."""
    return "–" if value is None else format(value, style).replace("-", "−")


def _duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
