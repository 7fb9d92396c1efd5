"""Curves of students: accuracy of all runs over seconds and samples, and each student's loss."""

from collections.abc import Sequence
from statistics import fmean

from markupsafe import Markup

from coopt_fl.report.collect import UNFINISHED, Seeds, Student
from coopt_fl.report.figures import Curve, Kind, curves
from coopt_fl.report.parts import LeftOut
from coopt_fl.report.tables import Entry

Figures = list[tuple[str, Markup]]
Places = list[tuple[float, float]]


def accuracy_figures(entries: Sequence[Entry]) -> Figures:
    """Return all students' accuracy over seconds, including preparation, and over samples.

    Raises:
        LeftOut: no student was probed, or a single one and only at its end.
    """
    found = [(one, one.seeds) for one in entries if one.seeds]
    probed = [(one, seeds) for one, seeds in found if seeds.mean("accuracy") is not None]
    if not probed:
        raise LeftOut("no student was probed: there are no labels, or none was trained")
    if len(probed) == 1 and _kind(probed[0][1].first) == "ends":
        raise LeftOut(
            "the student was probed only after training; `coopt pretrain` probes after every epoch"
        )
    alt = "Probe accuracy at the end: " + ", ".join(
        f"{one.name} {seeds.mean('accuracy'):.1%}" for one, seeds in probed
    )
    figures = []
    for clock, label in (("seconds", "seconds"), ("samples", "samples seen")):
        lines = [line for one, seeds in probed for line in _lines(one, seeds, clock)]
        figure = curves(f"accuracy-{clock}", f"{alt}; by {clock}", lines, label, percent=True)
        figures.append((f"By {clock}", figure))
    return figures


def training_figures(entries: Sequence[Entry]) -> Figures:
    """Return loss and, if measured, feature spread over samples, of the run's first seeds.

    Raises:
        LeftOut: no student was trained for at least two epochs.
    """
    trained = [(one.colour, one.seeds.first) for one in entries if one.seeds]
    students = [(colour, one) for colour, one in trained if len(one.curve) > 1]
    if not students:
        raise LeftOut("no student was trained for two epochs" if trained else UNFINISHED)
    anchor = entries[0].anchor
    figures = [("Training loss", _measured(f"{anchor}-loss", "loss", students))]
    spread = [one for one in students if any(point.spread is not None for point in one[1].curve)]
    if spread:
        figures.append(
            ("Feature spread, 0 if collapsed", _measured(f"{anchor}-spread", "spread", spread))
        )
    return figures


def _kind(student: Student) -> Kind:
    """Return "ends" if no epoch before the last one was probed, else "mean"."""
    return "ends" if all(point.accuracy is None for point in student.curve[:-1]) else "mean"


def _lines(entry: Entry, seeds: Seeds, clock: str) -> list[Curve]:
    """Return each seed's curve and their mean over the epochs that all have.

    If participants' preparation differs in sum and maximum, the mean is also drawn as after the
    slowest participant alone.
    """
    before = seeds.first.preparation if clock == "seconds" else None
    probes = [_probes(student, clock) for student in seeds.students]
    own = [list(known.values()) for known in probes]
    common = [epoch for epoch in probes[0] if all(epoch in known for known in probes)]
    of_all = [[known[epoch] for known in probes] for epoch in common]
    mean = [(fmean(x for x, _ in at), fmean(y for _, y in at)) for at in of_all]
    after = before.sum if before else 0.0

    def line(name: str, places: Places, shift: float, kind: Kind) -> Curve:
        return Curve(name, entry.colour, [(shift + x, y) for x, y in places], kind)

    drawn = [line("", places, after, "seed") for places in own if len(own) > 1]
    if before and before.max < before.sum:
        drawn.append(line("", mean, before.max, "alone"))
    return [*drawn, line(entry.name, mean, after, _kind(seeds.first))]


def _probes(student: Student, clock: str) -> dict[int, tuple[float, float]]:
    """Return (seconds or samples, accuracy) of each probe, by epoch; epoch 0 is untrained."""
    last = student.curve[-1]
    known = {0: (0.0, student.random_accuracy)} | {
        point.epoch: (float(getattr(point, clock)), point.accuracy) for point in student.curve
    }
    if last.accuracy is None:
        known[last.epoch] = float(getattr(last, clock)), student.accuracy
    return {epoch: (at, found) for epoch, (at, found) in known.items() if found is not None}


def _measured(name: str, what: str, students: Sequence[tuple[int, Student]]) -> Markup:
    """Return a figure of the students' loss or spread over samples."""
    lines = []
    for colour, one in students:
        known = [(float(point.samples), getattr(point, what)) for point in one.curve]
        places = [(at, value) for at, value in known if value is not None]
        lines.append(Curve(one.model if len(students) > 1 else "", colour, places))
    first = lines[0].places
    alt = f"{what} after each epoch, from {first[0][1]:.3f} to {first[-1][1]:.3f}"
    return curves(name, alt, lines, "samples seen")
