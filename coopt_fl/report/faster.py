"""How many times faster students were trained on an optimized dataset than by baselines."""

from collections.abc import Sequence
from typing import Any

from coopt_fl.report.collect import Run
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.students.objectives import ON_TARGETS
from coopt_fl.students.pretrain import compare

Values = dict[str, Any]


def speed_ups(runs: Sequence[Run]) -> list[Values]:
    """Return a row for each student on targets and each baseline, of what ``pretrain`` trained.

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
    return [_row(one, other) for one in ours for other in baselines]


def _row(ours: Run, baseline: Run) -> Values:
    found = part(lambda: _compared(ours, baseline))
    return {"name": ours.name, "baseline": baseline.name, "found": found}


def _compared(ours: Run, baseline: Run) -> Values:
    """Return the speed-ups over the seeds that both have."""
    one, other = ({result["seed"]: result for result in run.results} for run in (ours, baseline))
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise LeftOut("they have no seed in common")
    found = compare([one[seed] for seed in seeds], [other[seed] for seed in seeds])
    return found | {"seeds": len(seeds)}
