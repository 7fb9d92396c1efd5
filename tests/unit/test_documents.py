"""README and docs: links lead somewhere, commands, options and keys exist, Python compiles."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from coopt_fl.cli.main import app
from coopt_fl.config.rules import all_keys
from tests.fenced import FENCE, fenced, python_in

ROOT = Path(__file__).parents[2]
MADE = ROOT / "docs" / "reference"
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {*MADE.glob("*")})
KEYS = {*all_keys()}
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}
COMMANDS: Any = get_command(app).commands  # type: ignore[attr-defined]
OF_ALL = {option for part in get_command(app).params for option in part.opts} | {"--help"}


def code(text: str) -> Iterator[str]:
    """Yield the lines of blocks, which a backslash continues, and spans of code."""
    for _, block in fenced(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def problems_of(line: str) -> Iterator[str]:
    """Yield what a line of code names that there is not."""
    for key in re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-zN0-9_]+)+)=", line):
        plain = re.sub(r"\.(\d+|N)\b", ".0", key)
        if plain.partition(".")[0] in SECTIONS and plain not in KEYS:
            yield f"no key {key}"
    for name, words in re.findall(r"(?:^|[&|;] |bin/)coopt ([a-z][\w-]*)((?: [^|&;#\n]*)?)", line):
        if name not in COMMANDS:
            yield f"no command coopt {name}"
            continue
        known = {option for part in COMMANDS[name].params for option in part.opts} | OF_ALL
        for option in re.findall(r"(?<!\S)\[?(--[a-z][\w-]*)", words):
            if option not in known:
                yield f"no option {option} of coopt {name}"
        for key in re.findall(r"(?<!\S)([a-z_]+)=\S", words):
            if key not in KEYS:
                yield f"no key {key} of coopt {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    problems = [problem for line in code(text) for problem in problems_of(line)]
    for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", FENCE.sub("", text)):
        place = page.parent / link
        if "://" not in link and not place.exists() and MADE not in place.resolve().parents:
            problems.append(f"no file {link}")
    for block in python_in(text):
        compile(block, str(page), "exec")
    assert problems == []


def test_what_is_not_there_is_told() -> None:
    told = [*problems_of("coopt run digits student.lrr=1 --outt x"), *problems_of("coopt rum")]
    assert told == ["no key student.lrr", "no option --outt of coopt run", "no command coopt rum"]


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110 and max(map(len, lines)) <= 110
