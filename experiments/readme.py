"""The README's two figures, in the report's style, made from committed results alone.

The t-SNE of targets that are not aligned and of those that are, and accuracy over seconds of all
objectives, the preparation of the targets included.
"""

import json
from pathlib import Path

import numpy as np

from coopt_fl.optimized.preparation import Preparation
from coopt_fl.report.curves import accuracy_figures
from coopt_fl.report.figures import points
from coopt_fl.report.standalone import standalone
from coopt_fl.report.students import Seeds, Student
from coopt_fl.report.tables import Entry
from coopt_fl.students import Point
from experiments.table import Cell

SCALE, STUDY = "cpu", "cifar10"
PANELS = ("not aligned", "aligned to the consensus")


def draw(results: Path, figures: Path) -> None:
    """Draw both."""
    for name, make in (("tsne", alignment), ("table1_baselines", seconds)):
        known = json.loads((results / f"{name}-{SCALE}.json").read_text())[STUDY]
        (figures / f"readme-{name}.svg").write_text(make(known))


def alignment(known: Cell) -> str:
    """Return the targets before and after alignment, in the colours of their classes."""
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
    """Return accuracy over seconds of every objective, its seeds, and their mean."""
    untrained, *trained = sorted(known["table"], key=lambda row: row["objective"] != "random")
    entries = []
    for colour, name in enumerate(row["objective"] for row in trained):
        cells = [cell for cell in known["cells"] if cell["objective"] == name]
        students = tuple(student(cell, untrained["accuracy"]["mean"]) for cell in cells)
        entries.append(Entry(colour, name, name, name, name, Seeds(students)))
    ((_, figure), _) = accuracy_figures(entries)
    return standalone([("Probe accuracy over seconds", figure)])


def student(cell: Cell, untrained: float) -> Student:
    """Return what a cell of the table says of a training."""
    before = (cell[f"preparation s, one {each}"] for each in ("device", "each"))
    return Student(
        objective=cell["objective"],
        model="",
        seed=cell["seed"],
        epochs=len(cell["curve"]),
        curve=tuple(Point(**point) for point in cell["curve"]),
        preparation=Preparation(*before, {}, alone=True),
        random_accuracy=untrained,
        accuracy=cell["accuracy"],
    )
