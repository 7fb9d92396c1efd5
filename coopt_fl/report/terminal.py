"""Tables and lines on a terminal.

Names, paths and messages come from outside, and rich would read "[b]" and ":x:" in a string as
markup; so every cell and every title is a Text, which is printed as it is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 124
"""Columns of a table that is not printed on a terminal."""


def short(prior: str) -> str:
    """Return a prior's specification, of a program's object with the begin of its sha256."""
    return re.sub(r"(?<=@[0-9a-f]{12})[0-9a-f]{52}$", "", prior)


def to_copy(text: str) -> Group:
    """Return text that is not wrapped: the paths and commands in it are copied.

    It is in a group, for rich forgets that of a text that it is to print by itself.
    """
    return Group(Text(text, no_wrap=True, overflow="ignore"))


def table(title: str, *texts: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table, at least as wide as its title, with headings of its columns.

    What does not fit goes on in the next line: nothing is cut.
    """
    plain = Text(title, style="table.title")
    empty = Table(title=plain, title_justify="left", min_width=plain.cell_len)
    for heading in texts:
        empty.add_column(heading, overflow="fold")
    for heading in numbers:
        empty.add_column(heading, justify="right", overflow="fold")
    return empty


def row(to: Table, *cells: str | Text, style: str | None = None) -> None:
    """Add a row of cells that are printed as they are."""
    to.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), style=style)


def facts_table(title: str, known: Mapping[str, Any]) -> Table:
    """Return a table of names and values, without headings."""
    facts = table(title, "name", "value")
    facts.show_header = False
    for key, value in known.items():
        row(facts, key, str(value))
    return facts


def as_yaml(value: Any) -> str:
    """Return a value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def percent(accuracy: float | None) -> str:
    """Return a share in [0, 1] as text; None is one that takes labels."""
    return "no labels" if accuracy is None else f"{100 * accuracy:.1f}%"


def cells(known: Mapping[str, Any], **formats: str) -> list[str]:
    """Return values as text; one who was lost before the alignment lacks some."""
    return ["" if known[key] is None else format(known[key], how) for key, how in formats.items()]
