"""Writes the reference's pages from the code: commands, configuration keys, Python."""

from collections.abc import Iterable, Iterator, Sequence
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any

from typer.main import get_command

import coopt_fl
from coopt_fl.cli.main import app
from coopt_fl.config.explain import explain
from coopt_fl.registry import KEYS, PARTS
from coopt_fl.report.console import allowed
from coopt_fl.report.terminal import as_yaml


def write(folder: Path) -> None:
    """Write ``cli.md``, ``keys.md`` and ``python.md`` into ``folder``, unless they are the same."""
    folder.mkdir(exist_ok=True)
    for name, lines in (("cli", commands()), ("keys", keys()), ("python", python())):
        text = "\n".join(lines) + "\n"
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def commands() -> Iterator[str]:
    """Yield the page of the command line: each command with its arguments and options."""
    group: Any = get_command(app)
    yield "# Commands\n\n`coopt COMMAND --help` prints the same. Options of every command:\n"
    yield from table(("option", "meaning"), map(option, group.params))
    for name, command in group.commands.items():
        needed = [part for part in command.params if is_argument(part) or part.required]
        words = " ".join(map(usage, needed))
        yield f"\n## coopt {name}\n\n```\ncoopt {name} {words} [OPTIONS]\n```\n\n{command.help}\n"
        yield from table(("argument or option", "meaning"), map(option, command.params))


def is_argument(part: Any) -> bool:
    """Tell whether a parameter has no name on the command line."""
    return bool(part.param_type_name == "argument")


def usage(part: Any) -> str:
    """Return how a parameter is given."""
    value = part.make_metavar(None)
    return value if is_argument(part) else f"{part.opts[0]} {value}"


def option(part: Any) -> tuple[str, str]:
    """Return the names of a parameter, and what it means."""
    names = ", ".join(f"`{name}`" for name in (*part.opts, *part.secondary_opts))
    return (f"`{part.make_metavar(None)}`" if is_argument(part) else names, part.help or "")


def keys() -> Iterator[str]:
    """Yield the page of configuration keys, section by section, and of the parts they may name."""
    known = explain()
    yield "# Configuration keys\n\n`coopt config --explain [KEY]` prints the same, and"
    yield "`coopt config CONFIG` the values of a configuration. On the command line: `KEY=VALUE`.\n"
    for section, about in known["sections"].items():
        yield f"\n## {section or 'Top level'}\n\n{about}\n"
        mine = {key: one for key, one in known["keys"].items() if one["section"] == section}
        rows = ((f"`{key}`", one["meaning"], allowed(one), shown(one)) for key, one in mine.items())
        yield from table(("key", "meaning", "allowed", "default"), rows)
    yield "\n## Parts\n\nWhat ships, by its key. [Own parts](../plugins.md) are named alike.\n"
    rows = (
        (f"`{KEYS[kind]}`", ", ".join(f"`{name}`" for name in PARTS.shipped(kind))) for kind in KEYS
    )
    yield from table(("key", "names"), rows)


def shown(key: dict[str, Any]) -> str:
    """Return a key's default."""
    return "" if key["default"] in (None, "") else f"`{as_yaml(key['default'])}`"


def python() -> Iterator[str]:
    """Yield the page of the public functions and classes, from their docstrings."""
    yield "# Python\n\n`import coopt_fl` is quick: each name is imported when it is first used.\n"
    public = [getattr(coopt_fl, name) for name in coopt_fl.__all__]
    yield "\n## Functions\n"
    yield from (directive("autofunction", made) for made in public if isfunction(made))
    yield "\n## Types\n"
    yield from (directive("autoclass", made, ":members:") for made in public if isclass(made))
    yield "\n## coopt_fl.data\n"
    for name in ("from_arrays", "from_dataset", "open_source"):
        yield directive("autofunction", getattr(coopt_fl.data, name))
    yield "\n## coopt_fl.register\n"
    for name in KEYS:
        yield directive("autofunction", getattr(coopt_fl.register, name))


def directive(kind: str, made: Any, *options: str) -> str:
    """Return what makes Sphinx write down the docstring of a function or class."""
    path = f"{made.__module__}.{made.__qualname__}"
    return "\n".join(
        ("```{eval-rst}", f".. {kind}:: {path}", *(f"   {o}" for o in options), "```\n")
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        cells = (cell.replace("|", r"\|").replace("\n", " ") for cell in row)
        yield f"| {' | '.join(cells)} |"
