"""What run directories hold: the output of ``coopt run``, ``centralized`` or ``pretrain``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt_fl.core import typed
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import understood
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.provenance import Provenance, read_provenance
from coopt_fl.optimized.read import dataset_folder
from coopt_fl.report.students import Seeds, pretrained, trained
from coopt_fl.students.pretrain import RESULT

Values = dict[str, Any]

UNFINISHED = "there is no summary.json, for this run is not at its end; the same command goes on"


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        name: what the report calls it: the end of its path, long enough to tell it from others.
        path: the directory.
        config: resolved configuration, as plain values.
        versions: of what determines the numbers.
        hardware: what it ran on, where that was written down.
        provenance: of its optimized dataset; None where it made none.
        summary: ``summary.json``; None where there is none.
        students: what was trained; what the run is about first.
        results: what ``coopt pretrain`` wrote, for each seed; empty where another command ran.
    """

    name: str
    path: Path
    config: Values
    versions: dict[str, str]
    hardware: dict[str, str]
    provenance: Provenance | None
    summary: Values | None
    students: tuple[Seeds, ...]
    results: tuple[Values, ...]

    @property
    def student(self) -> Seeds | None:
        """What the run is about; None where it made a dataset only."""
        return self.students[0] if self.students else None

    @property
    def state(self) -> RunState:
        """The platform's state, which need not be there."""
        return RunState(self.path)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read run directories, in order.

    Raises:
        ConfigError: a directory is not there, is given twice, holds no finished run, or a damaged
            file.
        VerificationError: a provenance is damaged.
    """
    places = [path.expanduser().resolve() for path in paths]
    if len(set(places)) < len(places):
        raise ConfigError("a run directory is given twice; give each once")
    return [_read(place, name) for place, name in zip(places, _names(places), strict=True)]


def _read(path: Path, name: str) -> Run:
    if not path.is_dir():
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
    students = trained(path, summary)
    return Run(
        name=name,
        path=path,
        config=provenance.config if summary is None else summary["config"],
        versions=provenance.versions,
        hardware={},
        provenance=provenance,
        summary=summary,
        students=tuple(Seeds((one,)) for one in students),
        results=(),
    )


def _pretrained(path: Path, name: str, seeds: list[Values]) -> Run:
    """Return a run of several seeds, which differ in nothing else.

    Raises:
        ConfigError: they do.
    """
    for other in seeds[1:]:
        _require_alike(path, seeds[0], other)
    return Run(
        name=name,
        path=path,
        config=seeds[0]["config"],
        versions=seeds[0]["versions"],
        hardware=seeds[0]["hardware"],
        provenance=None,
        summary=None,
        students=(Seeds(tuple(pretrained(one) for one in seeds)),),
        results=tuple(seeds),
    )


def _require_alike(path: Path, first: Values, other: Values) -> None:
    """Raise ConfigError where two seeds differ in anything else, as after other settings do."""
    different = [key for key in _settings(first) if _settings(first)[key] != _settings(other)[key]]
    if different:
        seeds = f"{first['seed']} and {other['seed']}"
        raise ConfigError(
            f"seeds {seeds} in {path} were trained with another {', '.join(different)}: repeat "
            "`coopt pretrain` with all seeds, or remove the folder of the one that is out of date"
        )


def _settings(result: Values) -> Values:
    """Return what every seed of a run has in common."""
    config = {key: value for key, value in result["config"].items() if key != "seed"}
    student = {f"student.{key}": value for key, value in config.pop("student").items()}
    return config | student | {"dataset": result["dataset_digest"]}


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ."""
    deepest = max(len(place.parts) for place in places)
    for length in range(1, deepest + 1):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names
