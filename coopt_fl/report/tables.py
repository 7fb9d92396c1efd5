"""The report's tables and numbers, as plain values for the template."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from coopt_fl.report.collect import UNFINISHED, Run, Seeds
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.students.objectives import on_targets
from coopt_fl.students.pretrain import compare

Values = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A row of the overview: a student with all its seeds, or a run without one.

    Attributes:
        colour: index of its series.
        run: name of its run.
        name: name of its run, followed by the student's model if the run has several.
        anchor: HTML id of its run's section.
        method: how it was trained, in words.
        seeds: the student's seeds; None if the run made only a dataset.
    """

    colour: int
    run: str
    name: str
    anchor: str
    method: str
    seeds: Seeds | None


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Return the overview's rows for the students of all runs."""
    found: list[Entry] = []
    for number, run in enumerate(runs, 1):
        for seeds in run.students or (None,):
            several = len(run.students) > 1
            name = f"{run.name} {seeds.first.model}" if seeds and several else run.name
            colour, anchor = len(found), f"run-{number}"
            found.append(Entry(colour, run.name, name, anchor, _method(run, seeds), seeds))
    return found


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return each setting that differs between runs: its key, and its value in each run."""
    flat = [dict(_flat(run.config)) | _seeds(run) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, "–") for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted key and value, in YAML notation, of every setting below ``key``."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, one in items:
        if isinstance(one, (dict, list)):
            yield from _flat(one, f"{key}{name}.")
        else:
            plain = {None: "null", True: "true", False: "false"}
            yield f"{key}{name}", plain[one] if one is None or isinstance(one, bool) else str(one)


def _seeds(run: Run) -> dict[str, str]:
    """Return all seeds of a run with several, to replace its first seed."""
    seeds = [str(one.seed) for one in run.student.students] if run.student else []
    return {"seed": ", ".join(seeds)} if len(seeds) > 1 else {}


def shared_devices(entries: Sequence[Entry]) -> list[str]:
    """Return the names of runs in which participants shared a device during preparation."""
    prepared = [(one.run, one.seeds.first.preparation) for one in entries if one.seeds]
    return list(dict.fromkeys(run for run, before in prepared if before and not before.alone))


def costs(run: Run) -> dict[str, float]:
    """Return seconds by phase.

    Raises:
        LeftOut: the run is not finished; times are written at its end.
    """
    if run.summary:
        return dict(run.summary["seconds"])
    if run.provenance is None and run.student:
        before = run.student.first.preparation
        return (before.parts if before else {}) | {"training": run.student.mean("seconds") or 0.0}
    raise LeftOut(UNFINISHED)


def speed_ups(runs: Sequence[Run]) -> list[Values]:
    """Return a row for each pair of a student trained on targets and a baseline, by ``pretrain``.

    Raises:
        LeftOut: the runs do not include both.
    """
    trained = [run for run in runs if run.results]
    ours = [run for run in trained if on_targets(run.results[0]["objective"])]
    baselines = [run for run in trained if run not in ours]
    if not ours or not baselines:
        raise LeftOut(
            "it takes the outputs of two `coopt pretrain`: one by regression or rela on an "
            "optimized dataset, and one by a baseline"
        )
    return [
        {"name": one.name, "baseline": other.name, "found": part(partial(_compared, one, other))}
        for one in ours
        for other in baselines
    ]


def _compared(ours: Run, baseline: Run) -> Values:
    """Return the speed-ups over the seeds that both have."""
    one, other = ({result["seed"]: result for result in run.results} for run in (ours, baseline))
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise LeftOut("they have no seed in common")
    found = compare([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    return found | {"seeds": len(seeds)}


def _method(run: Run, seeds: Seeds | None) -> str:
    """Return how a student was trained, in words."""
    objective = [seeds.first.objective] if seeds else []
    if run.provenance is None:
        number = len(seeds.students) if seeds else 0
        return ", ".join(objective + ([f"{number} seeds"] if number > 1 else []))
    people = run.provenance.contributors
    by = f"{len(people)} participants" if len(people) > 1 else f"{people[0].name} alone"
    return ", ".join([by, *objective])


def judged(run: Run) -> list[Values]:
    """Return a row for each judgement of a student by ``coopt probe``."""
    return [
        {"student": seeds.first.model, "images": _named(one.data), "accuracy": one.accuracy}
        for seeds in run.students
        for one in seeds.first.judgements
    ]


def images(run: Run) -> str:
    """Return a description of a run's images, the same for the same images."""
    return _named(run.config["data"])


def _named(data: Values) -> str:
    place = f" in {data['root']}" if data["root"] else ""
    first = f", the first {data['limit']:,}" if data["limit"] else ""
    splits = [one for one in data.get("split", {}).values() if one]  # absent in older files
    return f"{data['source']}{place}{first}{''.join(f', {one}' for one in splits)}"
