"""Students in a run directory: how each was trained, in what time, and what it is worth."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt_fl.optimized.preparation import Preparation, preparation
from coopt_fl.students.checkpoint import read_checkpoint
from coopt_fl.students.curve import Point

Values = dict[str, Any]


@dataclass(frozen=True)
class Student:
    """A trained model.

    Attributes:
        objective: ``regression`` or the name of a self-supervised baseline.
        model: as in ``student.model``.
        seed: of the training.
        epochs: that were planned.
        curve: what is known after each epoch that was done, at least one.
        preparation: None for baselines, and where nobody knows.
        random_accuracy: of the probe on the untrained model.
        accuracy: of the probe at the end; None where there are no labels, or nobody probed it.
    """

    objective: str
    model: str
    seed: int
    epochs: int
    curve: tuple[Point, ...]
    preparation: Preparation | None
    random_accuracy: float | None
    accuracy: float | None

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.curve[-1].seconds


@dataclass(frozen=True)
class Seeds:
    """A student for each of one or several seeds, which differ in nothing else."""

    students: tuple[Student, ...]

    @property
    def first(self) -> Student:
        """The student with the first seed."""
        return self.students[0]

    def mean(self, name: str) -> float | None:
        """Return the mean of the students' attribute ``name``; None where one has none."""
        known = self._known(name)
        return statistics.fmean(known) if known else None

    def spread(self, name: str) -> float | None:
        """Return the sample standard deviation of ``name``; None of less than two."""
        known = self._known(name)
        return statistics.stdev(known) if len(known) > 1 else None

    def _known(self, name: str) -> list[float]:
        found = [getattr(student, name) for student in self.students]
        known = [one for one in found if one is not None]
        return known if len(known) == len(found) else []


def pretrained(known: Values) -> Student:
    """Return the student of a ``pretrain.json``."""
    before = known["preparation"]
    return Student(
        objective=str(known["objective"]),
        model=str(known["model"]),
        seed=int(known["seed"]),
        epochs=int(known["config"]["student"]["epochs"]),
        curve=tuple(Point(**point) for point in known["curve"]),
        preparation=before and Preparation(**before),
        random_accuracy=known["random_accuracy"],
        accuracy=known["accuracy"],
    )


def trained(path: Path, summary: Values | None) -> Iterator[Student]:
    """Yield the student of a run, then those of ``coopt train``; only the former was probed.

    Raises:
        ConfigError: a checkpoint is of another version.
    """
    before = preparation(path)
    own = path / "student" / "checkpoint.pt"
    if summary and own.is_file():
        random, accuracy = summary["comparison"]["random_init"], summary["student"]
        yield _of_file(own, before, random, accuracy["probe_accuracy"], summary["config"])
    for file in sorted((path / "students").glob("*/checkpoint.pt")):
        yield _of_file(file, before)


def _of_file(
    file: Path,
    before: Preparation | None,
    random_accuracy: float | None = None,
    accuracy: float | None = None,
    probed: Values | None = None,
) -> Student:
    """Return the student of a checkpoint.

    Args:
        file: The checkpoint.
        before: What came before its training.
        random_accuracy: Of a student that was probed.
        accuracy: Likewise.
        probed: Its configuration; a later training that has not ended is another student.
    """
    content = read_checkpoint(file)
    meta: Values = content["meta"]
    if probed and (content["resume"] is not None or meta["student"] != probed["student"]):
        random_accuracy = accuracy = None
    return Student(
        objective=str(meta["student"]["objective"]),
        model=str(content["name"]),
        seed=int(meta["seed"]),
        epochs=int(meta["epochs"]),
        curve=tuple(Point(**point) for point in meta["curve"]),
        preparation=before,
        random_accuracy=random_accuracy,
        accuracy=accuracy,
    )
