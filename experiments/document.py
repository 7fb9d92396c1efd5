"""The documents' tables and the README's figures, from results: ``python -m experiments.document``.

It fills the tables of all documents in a folder and its subfolders. A table is between
``<!-- NAME STUDY -->`` and ``<!-- end -->``, such as ``<!-- recipe-cpu digits -->``; the text
between these is replaced. ``<!-- NAME STUDY speed -->`` is a table of speed-ups over each row,
``<!-- NAME STUDY ranks -->`` of the rank correlation of uniformity and probes,
``<!-- NAME STUDY totals -->`` of accuracies with seconds by both clocks,
``<!-- NAME STUDY domains -->`` of accuracies by domain, and ``<!-- NAME STUDY provenance -->`` a
sentence with command, dates, hardware and versions.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import typer
from scipy.stats import spearmanr

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.words import plural
from coopt_fl.optimized.preparation import Preparation
from coopt_fl.report.collect import Seeds, Student
from coopt_fl.report.curves import accuracy_figures
from coopt_fl.report.figures import points
from coopt_fl.report.svg import standalone
from coopt_fl.report.tables import Entry
from coopt_fl.students.curve import mean_and_spread, speed_up
from experiments.command import run
from experiments.figures import label, measures, points_of, seconds_at, settings_of
from experiments.paper import WITHOUT
from experiments.table import FIGURES, RESULTS, Cell, stored

DOCUMENTS = Path(__file__).parents[1] / "docs"
PLACE = re.compile(
    r"(?P<head><!-- (?P<name>[\w-]+) (?P<study>\w+)"
    r"(?: (?P<rows>speed|ranks|totals|domains|provenance))? -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)

OURS = "regression"
DOMAINS = ("accuracy", "cifar10", "fashion", "digits", "mean of the domains")
TRAFFIC = ("rounds", "up each, MB", "down each, MB")
PERCENT = {"mean over cycles", *DOMAINS}
"""Measures that are shown in %."""

CLOCKS = {
    "training alone": None,
    "all, one device": "preparation s, one device",
    "all, one each": "preparation s, one each",
}
"""Key of the preparation seconds that each clock adds to those of training; None for none."""


def filled(text: str, results: Path = RESULTS) -> str:
    """Return a document with every table filled from the results in a folder."""

    def table(place: re.Match[str]) -> str:
        known = measured(results / f"{place['name']}.json", place["study"])
        made = provenance(known) if place["rows"] == "provenance" else rows(place["rows"], known)
        return f"{place['head']}\n{made}\n{place['end']}"

    def rows(kind: str | None, known: Cell) -> str:
        return markdown(ROWS[kind](known))

    return PLACE.sub(table, text)


def measured(file: Path, study: str) -> Cell:
    """Return the results of a study.

    Raises:
        ConfigError: ``file`` does not hold them.
    """
    known = stored(file)
    if study not in known:
        name, _, scale = file.stem.rpartition("-")
        raise ConfigError(
            f"{file} holds no results of {study}: run `python -m experiments {name} --scale "
            f"{scale}`, or give another --results or --scale"
        )
    return known[study]


def provenance(known: Cell) -> str:
    """Return a sentence on how the cells of a study were measured."""
    about = known["about"]
    days = sorted({cell["date"] for cell in known["cells"] if "date" in cell})
    hardware = ", ".join(f"{name} {value}" for name, value in about["hardware"].items())
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    elsewhere = Counter(cell["CPU"] for cell in known["cells"] if "CPU" in cell)
    if elsewhere:
        told = " and ".join(f"{count} ran on {cpu}" for cpu, count in elsewhere.items())
        rest = "" if "CPU" in about["hardware"] else ", the others' CPU was not recorded"
        hardware += f"; of {len(known['cells'])} cells {told}{rest}"
    trained = [cell["specialists"] for cell in known["cells"] if "specialists" in cell]
    if trained:
        each = {pair for weights in trained for pair in weights.items()}
        differ = len(each) > len(dict(each))
        hardware += (
            f"; the weights of the specialists are known of {len(trained)} of "
            f"{len(known['cells'])} cells, and {'differ' if differ else 'are the same in these'}"
        )
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "an unknown day"
    return (
        f"`{about['command']} --root DIR`, {when}, {about['samples']:,} images; {hardware}; "
        f"{versions}.\n"
    )


def markdown(rows: list[Cell]) -> str:
    """Return a table: each measure's mean, and sample standard deviation over seeds.

    Accuracies are in %. A measure that fewer seeds have than the row says so.
    """
    names = measures(rows)
    lines = [["", *names, "seeds"], ["---"] * (len(names) + 2)]
    for row in rows:
        seeds = max(row[name]["n"] for name in names if name in row)
        cells = [_number(name, row.get(name), seeds) for name in names]
        lines.append([label(row), *cells, str(seeds)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _number(name: str, value: dict[str, float] | None, seeds: float) -> str:
    """Return a mean with 3 significant digits, and its spread to the same place."""
    if value is None:
        return "–"
    mean, spread = value["mean"], value["std"]
    if name in PERCENT:
        text = f"{100 * mean:.1f} ± {100 * spread:.1f}" if value["n"] > 1 else f"{100 * mean:.1f}"
    elif spread == 0:  # of one seed, or of what is the same for all
        text = np.format_float_positional(float(f"{mean:.3g}"), trim="-")
        text = text if abs(mean) < 1000 else f"{float(text):,.0f}"
    else:
        decimals = 2 - math.floor(math.log10(abs(mean))) if mean else 2
        both = (round(one, decimals) for one in (mean, spread))
        text = " ± ".join(f"{one:,.{max(decimals, 0)}f}" for one in both)
    return text if value["n"] == seeds else f"{text} ({plural(int(value['n']), 'seed')})"


def domains(known: Cell) -> list[Cell]:
    """Return each row's accuracies, by domain and over all."""
    return [settings_of(row) | {name: row[name] for name in DOMAINS} for row in known["table"]]


def speed_ups(cells: list[Cell]) -> list[Cell]:
    """Return a row for each of ours and each baseline: its seconds over ours, by every clock.

    If rows are objectives, ours is the regression; in ``weak_priors`` ours are all with targets.
    ``equal``: for the same number of epochs, if both have it. ``to accuracy``: until ours reaches
    the baseline's final accuracy; it leaves out seeds in which ours never does, and baselines that
    end no better than the random backbone.
    """
    key = next(iter(cells[0]))
    names = dict.fromkeys(cell[key] for cell in cells if "curve" in cell)
    if key == "objective":
        others = [name for name in names if not name.startswith(OURS)]
        return [{key: other} | _faster(cells, key, OURS, other) for other in others]
    ours = [name for name in names if name not in WITHOUT]
    return [
        {key: f"{our} over {other}"} | _faster(cells, key, our, other)
        for our in ours
        for other in WITHOUT
    ]


def _faster(cells: list[Cell], key: str, our: str, other: str) -> Cell:
    """Return how many times faster the rows ``our`` are than ``other``, over their seeds."""
    by_seed = {cell["seed"]: cell for cell in cells if cell[key] == our}
    pairs = [(by_seed[c["seed"]], c) for c in cells if c[key] == other and c["seed"] in by_seed]
    if not pairs:
        return {}
    untrained = fmean(cell["accuracy"] for cell in cells if cell[key] == "random")
    learned = fmean(one["accuracy"] for _, one in pairs) > untrained
    alike = {len(cell["curve"]) for pair in pairs for cell in pair}
    row: Cell = {}
    for clock, prepared in CLOCKS.items():
        found = []
        for pair in pairs:
            curve, its_curve = (points_of(cell) for cell in pair)
            before = [cell[prepared] if prepared else 0.0 for cell in pair]
            found.append(speed_up(curve, its_curve, *before))
        for meaning, kind in (("equal", "equal_epochs"), ("to accuracy", "to_accuracy")):
            spread = mean_and_spread([one[kind] for one in found])
            if spread and (len(alike) == 1 if meaning == "equal" else learned):
                row[f"{meaning}, {clock}"] = spread
    return row


def totals(known: Cell) -> list[Cell]:
    """Return each row's accuracy, epochs, traffic, and :func:`seconds_at` its end by two clocks."""
    rows = []
    for row in known["table"]:
        settings = settings_of(row)
        cells = [c for c in known["cells"] if settings.items() <= c.items() and "curve" in c]
        found = settings | {"accuracy": row["accuracy"]}
        if cells:
            trained = [seconds_at(cell, cell["curve"][-1]) for cell in cells]
            made = [cell["preparation s, one device"] for cell in cells]
            both = [sum(pair) for pair in zip(trained, made, strict=True)]
            found |= {
                "epochs": mean_and_spread([float(cell["curve"][-1]["epoch"]) for cell in cells]),
                "training alone s": mean_and_spread(trained),
                "all, one device s": mean_and_spread(both),
            }
        found |= settings  # which may name the epochs, too
        rows.append(found | {name: row[name] for name in TRAFFIC if name in row})
    return rows


def ranks(cells: list[Cell]) -> list[Cell]:
    """Return Spearman's correlation of -uniformity and probe, among all and trained priors."""
    trained = [cell for cell in cells if not cell["prior"].startswith("random:")]
    rows = []
    for name, among in (("all priors", cells), ("trained priors", trained)):
        found = []
        for seed in dict.fromkeys(cell["seed"] for cell in among):
            same = [(c["uniformity"], c["accuracy"]) for c in among if c["seed"] == seed]
            found.append(-float(spearmanr(*zip(*same, strict=True)).statistic))
        rows.append({"among": name, "rank correlation": mean_and_spread(found)})
    return rows


ROWS: dict[str | None, Callable[[Cell], list[Cell]]] = {
    None: lambda known: known["table"],
    "speed": lambda known: speed_ups(known["cells"]),
    "ranks": lambda known: ranks(known["cells"]),
    "totals": totals,
    "domains": domains,
}
"""Rows made from the results of a study, by the last word of the table's marker."""


STUDY = "cifar10"
PANELS = ("not aligned", "aligned to the consensus")


def draw(results: Path, figures: Path) -> None:
    """Draw the README's two figures, in the report's style.

    These are the t-SNE of targets with and without alignment, and all objectives' accuracy over
    seconds by two clocks.
    """
    for name, scale, make in (("tsne", "cpu", alignment), ("table1_baselines", "whole", seconds)):
        known = measured(results / f"{name}-{scale}.json", STUDY)
        (figures / f"readme-{name}.svg").write_text(make(known))


def alignment(known: Cell) -> str:
    """Return the figure of targets before and after alignment, coloured by class."""
    panels = []
    for number, how in enumerate(PANELS):
        cell = next(one for one in known["cells"] if one["targets"] == how and "places" in one)
        alt = f"t-SNE of {len(cell['places'])} targets of {1 + max(cell['owners'])} participants"
        places, labels = np.array(cell["places"]), np.array(cell["labels"])
        figure = points(f"tsne-{number}", f"{alt}, {how}; colour: class", places, labels, 0)
        (row,) = (one for one in known["table"] if one["targets"] == how)
        panels.append((f"{how.capitalize()}: {row['accuracy']['mean']:.0%} agree", figure))
    return standalone(panels)


def seconds(known: Cell) -> str:
    """Return the figure of each objective's accuracy over seconds, by seed and mean, two clocks."""
    untrained, *trained = sorted(known["table"], key=lambda row: row["objective"] != "random")
    panels = []
    for clock in ("training alone", "all, one device"):
        entries = []
        for colour, name in enumerate(row["objective"] for row in trained):
            cells = [cell for cell in known["cells"] if cell["objective"] == name]
            students = [student(cell, untrained["accuracy"]["mean"], clock) for cell in cells]
            entries.append(Entry(colour, name, name, name, name, Seeds(tuple(students))))
        ((_, figure), _) = accuracy_figures(entries)
        panels.append((f"Probe accuracy over seconds: {clock}", figure))
    return standalone(panels)


def student(cell: Cell, untrained: float, clock: str) -> Student:
    """Return the training in a cell of the table, with its preparation by a clock."""
    key = CLOCKS[clock]
    before = cell[key] if key else 0.0
    return Student(
        objective=cell["objective"],
        model="",
        seed=cell["seed"],
        epochs=len(cell["curve"]),
        curve=tuple(points_of(cell)),
        preparation=Preparation(before, before, {}, alone=True),
        random_accuracy=untrained,
        accuracy=cell["accuracy"],
    )


def main(
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    documents: Annotated[Path, typer.Option(help="Folder of the documents.")] = DOCUMENTS,
) -> None:
    """Draw the README's figures, and fill the tables of all documents."""
    made = {file: filled(file.read_text(), results) for file in sorted(documents.rglob("*.md"))}
    draw(results, figures)
    for file, text in made.items():
        if text != file.read_text():
            file.write_text(text)


if __name__ == "__main__":
    sys.exit(run(main))
