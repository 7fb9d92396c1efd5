"""How many times faster than baselines, by the curves of a table whose rows are objectives."""

from typing import Any

from coopt_fl.seeds import mean_and_spread
from coopt_fl.students.curve import Point, speed_up

OURS = "regression"
CLOCKS = {
    "training alone": None,
    "all, one device": "preparation s, one device",
    "all, one each": "preparation s, one each",
}
"""What a training is charged with: nothing else, or its targets and their alignment too."""

Cell = dict[str, Any]


def speed_ups(cells: list[Cell]) -> list[Cell]:
    """Return a row for each baseline: its seconds over ours, for both meanings and every clock.

    ``equal``: for as many epochs. ``to accuracy``: until ours reaches the baseline's final
    accuracy; seeds in which it never does are left out.
    """
    ours = {cell["seed"]: cell for cell in cells if cell["objective"] == OURS}
    names = dict.fromkeys(cell["objective"] for cell in cells if "curve" in cell)
    rows = []
    for name in names:
        if name.startswith(OURS):
            continue
        pairs = [
            (ours[c["seed"]], c) for c in cells if c["objective"] == name and c["seed"] in ours
        ]
        rows.append({"objective": name} | _row(pairs))
    return rows


def _row(pairs: list[tuple[Cell, Cell]]) -> Cell:
    row: Cell = {}
    for clock, key in CLOCKS.items():
        found = [
            speed_up(
                _curve(our), _curve(other), *(one[key] if key else 0.0 for one in (our, other))
            )
            for our, other in pairs
        ]
        for meaning, kind in (("equal", "equal_epochs"), ("to accuracy", "to_accuracy")):
            spread = mean_and_spread([one[kind] for one in found])
            if spread:
                row[f"{meaning}, {clock}"] = spread
    return row


def _curve(cell: Cell) -> list[Point]:
    return [Point(**point) for point in cell["curve"]]
