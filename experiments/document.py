"""Tables of docs/results.md, from the committed results: ``python -m experiments.document``.

A table stands between ``<!-- NAME STUDY -->`` and ``<!-- end -->``, such as ``<!-- recipe-cpu
digits -->``; what is between them is replaced. ``<!-- NAME STUDY speed -->`` is how many times
faster ours is than each row, ``<!-- NAME STUDY ranks -->`` whether uniformity ranks priors as
probes do.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.figures import label, measures
from experiments.speed import speed_ups
from experiments.table import RESULTS
from experiments.uniformity_as_judge import ranks

DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"
PLACE = re.compile(
    r"(?P<head><!-- (?P<name>[\w-]+) (?P<study>\w+)(?: (?P<rows>speed|ranks))? -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)

Row = dict[str, Any]
ROWS: dict[str | None, Callable[[Row], list[Row]]] = {
    None: lambda known: known["table"],
    "speed": lambda known: speed_ups(known["cells"]),
    "ranks": lambda known: ranks(known["cells"]),
}
"""Of the results of a study, by the last word of a place."""


def filled(text: str, results: Path = RESULTS) -> str:
    """Return a document with every table as the results in a folder say."""

    def table(place: re.Match[str]) -> str:
        known = json.loads((results / f"{place['name']}.json").read_text())[place["study"]]
        return f"{place['head']}\n{markdown(ROWS[place['rows']](known))}\n{place['end']}"

    return PLACE.sub(table, text)


def markdown(rows: list[Row]) -> str:
    """Return a table: mean and standard deviation of every measure, accuracies in %."""
    names = measures(rows)
    head = ["", *names, "seeds"]
    lines = [head, ["---"] * len(head), *(_cells(row, names) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row, names: list[str]) -> list[str]:
    seeds = max(row[name]["n"] for name in names if name in row)
    return [label(row), *(_number(name, row.get(name)) for name in names), str(seeds)]


def _number(name: str, value: dict[str, float] | None) -> str:
    if value is None:
        return "–"
    if name in ("accuracy", "mean over cycles"):
        return f"{100 * value['mean']:.1f} ± {100 * value['std']:.1f}"
    return f"{value['mean']:.3g} ± {value['std']:.2g}"


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))
