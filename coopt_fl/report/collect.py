"""Reading run directories: the output of ``coopt run``, ``centralized`` or ``pretrain``."""

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

UNFINISHED = (
    "there is no summary.json, because this run is not at its end; the same command resumes it"
)


@dataclass(frozen=True)
class Student:
    """A trained model.

    Attributes:
        objective: ``regression`` or the name of a self-supervised baseline.
        model: the value of ``student.model``.
        seed: the seed of the training.
        epochs: the number of planned epochs.
        curve: measurements after each finished epoch, at least one.
        preparation: seconds spent on the dataset; None for baselines, or if unknown.
        random_accuracy: accuracy of the probe on the untrained model.
        accuracy: accuracy of the probe after training; None without labels, or if not probed.
        judgements: accuracies that ``coopt probe`` measured on its current checkpoint.
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
        """Training time in seconds."""
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
        """Return the mean of the students' attribute ``name``; None if a student lacks it."""
        known = self._known(name)
        return statistics.fmean(known) if known else None

    def spread(self, name: str) -> float | None:
        """Return the sample standard deviation of ``name``; None for fewer than two students."""
        known = self._known(name)
        return statistics.stdev(known) if len(known) > 1 else None

    def _known(self, name: str) -> list[float]:
        found = [getattr(student, name) for student in self.students]
        return [] if None in found else found


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        name: its name in the report: the shortest end of its path that is unique.
        path: the directory.
        config: resolved configuration, as plain values.
        versions: versions of the packages that determine the numbers.
        students: all trained students, the run's own first.
        hardware: the hardware it ran on, if recorded.
        provenance: provenance of its optimized dataset; None without one.
        summary: content of ``summary.json``; None without one.
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
        """The run's own student; None if the run made only a dataset."""
        return self.students[0] if self.students else None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read run directories, in order.

    Raises:
        ConfigError: a directory is missing or given twice, or holds no finished run or a damaged
            file.
        VerificationError: a provenance is damaged.
    """
    places = [expanded(path).resolve() for path in paths]
    if len(set(places)) < len(places):
        raise ConfigError("a run directory is given twice; give each once")
    return [_read(place, name) for place, name in zip(places, _names(places), strict=True)]


def _read(path: Path, name: str) -> Run:
    if not is_folder(path, ConfigError):
        raise ConfigError(
            f"there is no directory {path}; give the --out of `coopt run` or `coopt pretrain`"
        )
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
    """Yield the student of a run, then those of ``coopt train``, which the run did not probe.

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
    """Return the student in ``file``, with its accuracies from ``summary``.

    The summary is not used if a later training with other settings has replaced its student. The
    accuracy is then the one that ``coopt probe`` measured on the data of the training.
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
        accuracy=next(
            (one.accuracy["lbfgs"] for one in judged if one.data.items() >= meta["data"].items()),
            None,
        ),
        judgements=judged,
    )
    if summary is None or content["resume"] is not None:
        return student
    if _chosen(meta["student"]) != _chosen(summary["config"]["student"]):
        return student
    return replace(
        student,
        random_accuracy=summary["comparison"]["random_init"],
        accuracy=summary["student"]["probe_accuracy"],
    )


def _chosen(student: Values) -> Values:
    """Return the settings that checkpoints and configurations of all versions share."""
    known = {key: student[key] for key in student.keys() - {"precision", "init_sha256"}}
    return {"init": None} | known


def _pretrained(path: Path, name: str, seeds: list[Values]) -> Run:
    """Return a run of several seeds.

    Raises:
        ConfigError: the seeds differ in other settings.
    """
    first, settings = seeds[0], _settings(seeds[0])
    for other in seeds[1:]:
        if different := [key for key, value in settings.items() if value != _settings(other)[key]]:
            raise ConfigError(
                f"seeds {first['seed']} and {other['seed']} in {path} were trained with another "
                f"{', '.join(different)}: repeat `coopt pretrain` with all seeds, or remove the "
                "folder of the outdated seed"
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
    """Return the settings that all seeds of a run must share, by dotted key."""
    config = {key: value for key, value in result["config"].items() if key != "seed"}
    student = {f"student.{key}": value for key, value in config.pop("student").items()}
    return config | student | {"dataset": result["dataset_digest"]}


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that are unique, all with the same number of parts."""
    ends = (["/".join(place.parts[-length:]) for place in places] for length in count(1))
    return next(names for names in ends if len(set(names)) == len(names))
