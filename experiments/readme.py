"""The README's two figures, in the report's style: ``python -m experiments.readme STUDY``.

Made from committed results alone: the t-SNE of targets that are not aligned and of those that
are, and accuracy over seconds of all objectives, the preparation of the targets included.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from coopt_fl.optimized.preparation import Preparation
from coopt_fl.report.collect import Seeds, Student
from coopt_fl.report.curves import accuracy_figures
from coopt_fl.report.figures import points
from coopt_fl.report.svg import standalone
from coopt_fl.report.tables import Entry
from coopt_fl.students.curve import Point
from experiments.table import FIGURES, RESULTS

Known = dict[str, Any]
PANELS = ("not aligned", "aligned to the consensus")


def main(
    study: Annotated[str, typer.Argument(help="Of the scale, such as cifar10.")],
    scale: Annotated[str, typer.Option(help="cpu, whole, gpu or paper.")] = "cpu",
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    figures: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
) -> None:
    """Draw both."""
    figures.mkdir(parents=True, exist_ok=True)
    makers = {"tsne": alignment, "table1_baselines": seconds}
    for name, make in makers.items():
        known = json.loads((results / f"{name}-{scale}.json").read_text())[study]
        (figures / f"readme-{name}.svg").write_text(make(known))


def alignment(known: Known) -> str:
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


def seconds(known: Known) -> str:
    """Return accuracy over seconds of every objective, its seeds, and their mean."""
    (untrained,) = (
        row["accuracy"]["mean"] for row in known["table"] if row["objective"] == "random"
    )
    names = [row["objective"] for row in known["table"] if row["objective"] != "random"]
    entries = []
    for colour, name in enumerate(names):
        cells = [cell for cell in known["cells"] if cell["objective"] == name]
        students = tuple(student(cell, untrained) for cell in cells)
        entries.append(Entry(colour, name, name, name, name, Seeds(students)))
    ((_, figure), _) = accuracy_figures(entries)
    return standalone([("Probe accuracy over seconds", figure)])


def student(cell: Known, untrained: float) -> Student:
    """Return what a cell of the table says of a training."""
    curve = tuple(Point(**point) for point in cell["curve"])
    before = Preparation(
        cell["preparation s, one device"], cell["preparation s, one each"], {}, alone=True
    )
    return Student(
        objective=cell["objective"],
        model="",
        seed=cell["seed"],
        epochs=len(curve),
        curve=curve,
        preparation=before,
        random_accuracy=untrained,
        accuracy=cell["accuracy"],
    )


if __name__ == "__main__":
    typer.run(main)
