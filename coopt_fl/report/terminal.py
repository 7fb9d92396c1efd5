"""Tables and lines on a terminal.

Every cell and every title is a rich Text, which is printed literally: in a plain string rich would
interpret "[b]" and ":x:", which names, paths and messages may contain.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 124
"""Width in columns of a table that is not printed on a terminal."""


def short(prior: str) -> str:
    """Return a prior's specification, with a Python object's sha256 cut to 12 digits."""
    return re.sub(r"(?<=@[0-9a-f]{12})[0-9a-f]{52}$", "", prior)


def to_copy(text: str) -> Group:
    """Return text that is not wrapped, so that users can copy paths and commands from it.

    It is in a group, because rich ignores ``no_wrap`` of a text that is printed by itself.
    """
    return Group(Text(text, no_wrap=True, overflow="ignore"))


def table(title: str, *texts: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table with column headings, at least as wide as its title.

    Cells that do not fit are wrapped, never cut.
    """
    plain = Text(title, style="table.title")
    empty = Table(title=plain, title_justify="left", min_width=plain.cell_len)
    for heading in texts:
        empty.add_column(heading, overflow="fold")
    for heading in numbers:
        empty.add_column(heading, justify="right", overflow="fold")
    return empty


def row(to: Table, *cells: str | Text, style: str | None = None) -> None:
    """Add a row of cells that are printed literally."""
    to.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), style=style)


def facts_table(title: str, known: Mapping[str, Any]) -> Table:
    """Return a table of names and values, without headings."""
    facts = table(title, "name", "value")
    facts.show_header = False
    for key, value in known.items():
        row(facts, key, str(value))
    return facts


def as_yaml(value: Any) -> str:
    """Return a value in YAML notation."""
    return value if isinstance(value, str) else json.dumps(value)


def percent(accuracy: float | None) -> str:
    """Return a share in [0, 1] as a percentage, or "no labels" for None."""
    return "no labels" if accuracy is None else f"{100 * accuracy:.1f}%"


def cells(known: Mapping[str, Any], **formats: str) -> list[str]:
    """Return the named values as text by their formats; None becomes an empty cell.

    A participant that was lost before alignment lacks some values.
    """
    return ["" if known[key] is None else format(known[key], how) for key, how in formats.items()]
