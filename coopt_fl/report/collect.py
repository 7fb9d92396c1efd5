"""What run directories hold: the output of ``coopt run``, ``centralized`` or ``pretrain``."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import expanded, is_folder, understood
from coopt_fl.optimized.preparation import Preparation, preparation
from coopt_fl.optimized.provenance import Provenance, read_provenance
from coopt_fl.optimized.read import dataset_folder
from coopt_fl.students.checkpoint import read_checkpoint
from coopt_fl.students.curve import Point
from coopt_fl.students.judgements import Judgement, judgements
from coopt_fl.students.pretrain import RESULT

Values = dict[str, Any]

UNFINISHED = "there is no summary.json, for this run is not at its end; the same command goes on"


@dataclass(frozen=True)
class Student:
    """A trained model.

    Attributes:
        objective: ``regression`` or the name of a self-supervised baseline.
        model: as in ``student.model``.
        seed: of the training.
        epochs: that were planned.
        curve: measurements after each finished epoch, at least one.
        preparation: cost of the dataset; None for baselines, and where it is not known.
        random_accuracy: of the probe on the untrained model.
        accuracy: of the probe at the end; None without labels, or where it was not probed.
        judgements: what ``coopt probe`` said of it as it is now.
    """

    objective: str
    model: str
    seed: int
    epochs: int
    curve: tuple[Point, ...]
    preparation: Preparation | None
    random_accuracy: float | None = None
    accuracy: float | None = None
    judgements: tuple[Judgement, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self.curve[-1].seconds


@dataclass(frozen=True)
class Seeds:
    """Students that differ in nothing but their seed."""

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
        return [] if None in found else found


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        name: what the report calls it: the end of its path, long enough to tell it from others.
        path: the directory.
        config: resolved configuration, as plain values.
        versions: of the packages that determine the numbers.
        students: all that were trained, the run's own first.
        hardware: what it ran on, where that was written down.
        provenance: of its optimized dataset; None where it made none.
        summary: ``summary.json``; None where there is none.
        results: the ``pretrain.json`` of each seed; empty for other commands.
    """

    name: str
    path: Path
    config: Values
    versions: dict[str, str]
    students: tuple[Seeds, ...]
    hardware: dict[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    summary: Values | None = None
    results: tuple[Values, ...] = ()

    @property
    def student(self) -> Seeds | None:
        """The run's own student; None where it made only a dataset."""
        return self.students[0] if self.students else None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read run directories, in order.

    Raises:
        ConfigError: a directory is missing, is given twice, holds no finished run, or a damaged
            file.
        VerificationError: a provenance is damaged.
    """
    places = [expanded(path).resolve() for path in paths]
    if len(set(places)) < len(places):
        raise ConfigError("a run directory is given twice; give each once")
    return [_read(place, name) for place, name in zip(places, _names(places), strict=True)]


def _read(path: Path, name: str) -> Run:
    if not is_folder(path, ConfigError):
        raise ConfigError(f"no directory {path}; give what `coopt run --out` wrote")
    folder = dataset_folder(path)
    results = [*path.glob(RESULT), *path.glob(f"seed-*/{RESULT}")]
    with understood(f"a file in {path}"):
        if (folder / "provenance.json").is_file():
            return _optimized(path, name, read_provenance(folder))
        if results:
            read = [typed.read(one, Values) for one in results]
            seeds = sorted(read, key=lambda one: int(one["seed"]))
            return _pretrained(path, name, seeds)
    raise ConfigError(
        f"{path} holds neither dataset/provenance.json nor {RESULT}, which are written at the end "
        "of a run: finish it with the same command, or give another directory"
    )


def _optimized(path: Path, name: str, provenance: Provenance) -> Run:
    file = path / "summary.json"
    summary = typed.read(file, Values) if file.is_file() else None
    return Run(
        name=name,
        path=path,
        config=provenance.config if summary is None else summary["config"],
        versions=provenance.versions,
        students=tuple(Seeds((one,)) for one in _trained(path, summary)),
        provenance=provenance,
        summary=summary,
    )


def _trained(path: Path, summary: Values | None) -> Iterator[Student]:
    """Yield the student of a run, then those of ``coopt train``, which the run has not probed.

    Raises:
        ConfigError: a checkpoint is of another version.
    """
    before = preparation(path)
    own = path / "student" / "checkpoint.pt"
    if summary and own.is_file():
        yield _of_checkpoint(own, before, summary)
    for file in sorted((path / "students").glob("*/checkpoint.pt")):
        yield _of_checkpoint(file, before, None)


def _of_checkpoint(file: Path, before: Preparation | None, summary: Values | None) -> Student:
    """Return the student in ``file``, with its accuracies in ``summary``.

    These are of another student if a later training with other settings has not ended yet. Where
    there are none, the accuracy is what ``coopt probe`` said on the images of the training.
    """
    content = read_checkpoint(file)
    meta: Values = content["meta"]
    judged = tuple(judgements(file))
    student = Student(
        objective=meta["student"]["objective"],
        model=content["name"],
        seed=meta["seed"],
        epochs=meta["epochs"],
        curve=tuple(Point(**point) for point in meta["curve"]),
        preparation=before,
        accuracy=next((one.accuracy["lbfgs"] for one in judged if one.data == meta["data"]), None),
        judgements=judged,
    )
    if summary is None or content["resume"] is not None:
        return student
    chosen = {k: v for k, v in summary["config"]["student"].items() if k != "precision"}
    if {k: v for k, v in meta["student"].items() if k != "precision"} != chosen:
        return student
    return replace(
        student,
        random_accuracy=summary["comparison"]["random_init"],
        accuracy=summary["student"]["probe_accuracy"],
    )


def _pretrained(path: Path, name: str, seeds: list[Values]) -> Run:
    """Return a run of several seeds, which differ in nothing else.

    Raises:
        ConfigError: they do.
    """
    first, settings = seeds[0], _settings(seeds[0])
    for other in seeds[1:]:
        if different := [key for key, value in settings.items() if value != _settings(other)[key]]:
            raise ConfigError(
                f"seeds {first['seed']} and {other['seed']} in {path} were trained with another "
                f"{', '.join(different)}: repeat `coopt pretrain` with all seeds, or remove the "
                "folder of the one that is out of date"
            )
    return Run(
        name=name,
        path=path,
        config=first["config"],
        versions=first["versions"],
        students=(Seeds(tuple(map(_of_result, seeds))),),
        hardware=first["hardware"],
        results=tuple(seeds),
    )


def _of_result(known: Values) -> Student:
    """Return the student of a ``pretrain.json``."""
    before = known["preparation"]
    return Student(
        objective=known["objective"],
        model=known["model"],
        seed=known["seed"],
        epochs=known["config"]["student"]["epochs"],
        curve=tuple(Point(**point) for point in known["curve"]),
        preparation=before and Preparation(**before),
        random_accuracy=known["random_accuracy"],
        accuracy=known["accuracy"],
    )


def _settings(result: Values) -> Values:
    """Return what every seed of a run has in common."""
    config = {key: value for key, value in result["config"].items() if key != "seed"}
    student = {f"student.{key}": value for key, value in config.pop("student").items()}
    return config | student | {"dataset": result["dataset_digest"]}


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ."""
    ends = (["/".join(place.parts[-length:]) for place in places] for length in count(1))
    return next(names for names in ends if len(set(names)) == len(names))
