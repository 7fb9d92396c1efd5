"""How many times faster than baselines, by the curves of a table."""

from statistics import fmean
from typing import Any

from coopt_fl.students.curve import Point, mean_and_spread, speed_up
from experiments.weak_priors import WITHOUT

OURS = "regression"
CLOCKS = {
    "training alone": None,
    "all, one device": "preparation s, one device",
    "all, one each": "preparation s, one each",
}
"""What a training is charged with: nothing else, or its targets and their alignment too."""

Cell = dict[str, Any]


def speed_ups(cells: list[Cell]) -> list[Cell]:
    """Return a row for each of ours and each baseline: its seconds over ours, by every clock.

    Where rows are objectives, ours is the regression; in ``weak_priors`` it is all with targets.
    ``equal``: for as many epochs. ``to accuracy``: until ours reaches the baseline's final
    accuracy; seeds in which it never does are left out, and baselines that end no better than the
    random backbone.
    """
    key = next(iter(cells[0]))
    names = dict.fromkeys(cell[key] for cell in cells if "curve" in cell)
    if key == "objective":
        others = [name for name in names if not name.startswith(OURS)]
        return [{key: other} | _row(cells, key, OURS, other) for other in others]
    ours = [name for name in names if name not in WITHOUT]
    return [
        {key: f"{our} over {other}"} | _row(cells, key, our, other)
        for our in ours
        for other in WITHOUT
    ]


def _row(cells: list[Cell], key: str, our: str, other: str) -> Cell:
    """Return how many times faster the rows ``our`` are than ``other``, over their seeds."""
    by_seed = {cell["seed"]: cell for cell in cells if cell[key] == our}
    pairs = [(by_seed[c["seed"]], c) for c in cells if c[key] == other and c["seed"] in by_seed]
    untrained = fmean(cell["accuracy"] for cell in cells if cell[key] == "random")
    learned = fmean(one["accuracy"] for _, one in pairs) > untrained
    row: Cell = {}
    for clock, prepared in CLOCKS.items():
        found = [
            speed_up(
                _curve(one),
                _curve(baseline),
                *(cell[prepared] if prepared else 0.0 for cell in (one, baseline)),
            )
            for one, baseline in pairs
        ]
        for meaning, kind in (("equal", "equal_epochs"), ("to accuracy", "to_accuracy")):
            spread = mean_and_spread([one[kind] for one in found])
            if spread and (learned or meaning == "equal"):
                row[f"{meaning}, {clock}"] = spread
    return row


def _curve(cell: Cell) -> list[Point]:
    return [Point(**point) for point in cell["curve"]]
