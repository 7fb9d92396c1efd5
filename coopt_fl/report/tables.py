"""The report's tables and numbers, as plain values for the template."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from coopt_fl.optimized.provenance import Provenance
from coopt_fl.report.collect import UNFINISHED, Run, Seeds
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.report.shared import Ids
from coopt_fl.students.objectives import ON_TARGETS
from coopt_fl.students.pretrain import compare

Values = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A student, with each of its seeds, in the overview and in the curves.

    Attributes:
        colour: index of its series.
        run: name of its run.
        name: the same, with its model where the run has several.
        anchor: of its run's section.
        method: how it came about, in words.
        seeds: the student; None where the run has made a dataset only.
    """

    colour: int
    run: str
    name: str
    anchor: str
    method: str
    seeds: Seeds | None


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Return the students of all runs."""
    found: list[Entry] = []
    for number, run in enumerate(runs, 1):
        for seeds in run.students or (None,):
            several = len(run.students) > 1
            name = f"{run.name} {seeds.first.model}" if seeds and several else run.name
            colour, anchor = len(found), f"run-{number}"
            found.append(Entry(colour, run.name, name, anchor, _method(run, seeds), seeds))
    return found


def shared_devices(entries: Sequence[Entry]) -> list[str]:
    """Return the runs whose preparation was measured while participants shared a device."""
    prepared = [(one.run, one.seeds.first.preparation) for one in entries if one.seeds]
    return list(dict.fromkeys(run for run, before in prepared if before and not before.alone))


def stats(run: Run) -> list[tuple[str, str]]:
    """Return the few numbers that matter most of a run, each with what it is."""
    student, compared = run.student, (run.summary or {}).get("comparison", {})
    probes = [(compared.get("reference_prior"), "the reference prior itself")]
    if student:
        own = (student.mean("accuracy"), f"probe of the student, {student.first.model}")
        probes = [own, (student.mean("random_accuracy"), "the same, untrained"), *probes]
    found = [(f"{accuracy:.1%}", what) for accuracy, what in probes if accuracy is not None]
    if run.provenance:
        found.append((f"{run.provenance.rows:,}", f"targets of {run.provenance.dim} numbers"))
    if student:
        found.append((_duration(student.mean("seconds") or 0.0), "training"))
    return found


def _duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what ran, as terms and values."""
    config, known = run.config, run.provenance
    rows = [("Images", images(run)), ("Seed", ", ".join(_seeds(run)))]
    if known:
        targets = config["targets"]
        rows += [
            ("Participants", str(len(known.contributors))),
            ("Aligned to", known.reference),
            ("Targets", f"{known.rows:,} of {known.dim} numbers, {known.dtype}"),
            ("Normalisation", known.normalisation),
            ("Projection, solver", f"{targets['projection']}, {targets['solver']}"),
            ("Shared set", f"{config['shared']['size']:,} samples"),
            ("Dataset digest", known.digest),
        ]
    if run.student:
        first = run.student.first
        rows.append(("Student", f"{first.model}, {first.objective}, {first.epochs} epochs"))
    return rows + [(name[:1].upper() + name[1:], str(is_)) for name, is_ in run.hardware.items()]


def participants(known: Provenance, summary: Values | None, counts: Ids) -> list[Values]:
    """Return a row for each participant; its times are None without a summary.

    Args:
        known: the provenance.
        summary: ``summary.json``.
        counts: targets of each participant.
    """
    rates = {row["name"]: row for row in (summary or {}).get("participants", [])}
    return [
        {
            "colour": index,
            "name": one.name,
            "prior": one.prior,
            "uniformity": one.uniformity,
            "r2": one.r2_heldout,
            "samples": int(counts[index]),
            "seconds": rates.get(one.name, {}).get("seconds"),
            "rate": rates.get(one.name, {}).get("samples_per_s"),
            "mb": rates.get(one.name, {}).get("mb"),
        }
        for index, one in enumerate(known.contributors)
    ]


def costs(run: Run) -> list[Values]:
    """Return seconds by phase, with their share of the longest.

    Raises:
        LeftOut: the run is not at its end, when the times are written down.
    """
    if run.summary:
        spent: dict[str, float] = run.summary["seconds"]
    elif run.provenance is None and run.student:
        before = run.student.first.preparation
        spent = (before.parts if before else {}) | {"training": run.student.mean("seconds") or 0.0}
    else:
        raise LeftOut(UNFINISHED)
    longest = max(spent.values()) or 1.0
    return [
        {"phase": phase, "seconds": seconds, "share": 100 * seconds / longest}
        for phase, seconds in spent.items()
    ]


def speed_ups(runs: Sequence[Run]) -> list[Values]:
    """Return a row for each pair of a student on targets and a baseline, both by ``pretrain``.

    Raises:
        LeftOut: one of the two is not among the runs.
    """
    trained = [run for run in runs if run.results]
    ours = [run for run in trained if run.results[0]["objective"] in ON_TARGETS]
    baselines = [run for run in trained if run not in ours]
    if not ours or not baselines:
        raise LeftOut(
            "it takes the outputs of two `coopt pretrain`: by regression or rela on an optimized "
            "dataset, and by a baseline"
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
    """Return how a student came about, in words."""
    objective = [seeds.first.objective] if seeds else []
    if run.provenance is None:
        number = len(seeds.students) if seeds else 0
        return ", ".join(objective + ([f"{number} seeds"] if number > 1 else []))
    people = run.provenance.contributors
    by = f"{len(people)} participants" if len(people) > 1 else f"{people[0].name} alone"
    return ", ".join([by, *objective])


def _seeds(run: Run) -> list[str]:
    return [str(one.seed) for one in run.student.students] if run.student else [str(run.seed)]


def images(run: Run) -> str:
    """Return which images a run is of, in words that are equal for equal images."""
    data = run.config["data"]
    place = f" in {data['root']}" if data["root"] else ""
    first = f", the first {data['limit']:,}" if data["limit"] else ""
    return f"{data['source']}{place}{first}"
