"""Every help page, as it is printed: typer with another click once lost the help of arguments."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from coopt_fl.cli import main as cli

ROOT: Any = typer.main.get_command(cli.app)
WIDE = {"COLUMNS": "400", "TERMINAL_WIDTH": "400", "NO_COLOR": "1"}
COOPT = "import sys; sys.argv[0] = 'coopt'; from coopt_fl.cli.main import main; main()"


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every command, such as ("config",)."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from pages(below, (*path, name))


@pytest.mark.parametrize("path", list(pages(ROOT)), ids=lambda path: " ".join(["coopt", *path]))
def test_every_argument_and_option_is_described(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, width in WIDE.items():
        monkeypatch.setenv(name, width)
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 400)
    page = CliRunner().invoke(cli.app, [*path, "--help"]).output
    rows = [" ".join(line.strip("│ ").split()) for line in page.splitlines()]
    command = ROOT
    for name in path:
        command = command.commands[name]
    assert command.help.splitlines()[0] in rows
    context = click.Context(command)
    for parameter in command.get_params(context):
        name = parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.name
        (row,) = (row for row in rows if name in row.split()[:2])
        words = (parameter.help or "").split()
        assert len(words) >= 2, f"{name} has no description"
        assert " ".join(words) in row
    for name, below in getattr(command, "commands", {}).items():
        assert any(row.startswith(f"{name} {below.help.split()[0]}") for row in rows)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shell_is_given_its_script_and_completes_commands() -> None:
    shell = ["bash", "-c", f'"{sys.executable}" -c "{COOPT}" --show-completion bash; exit $?']
    shown = subprocess.run(shell, capture_output=True, text=True)
    assert (shown.returncode, "complete -o" in shown.stdout) == (0, True)
    assert "_COOPT_COMPLETE=complete_bash" in shown.stdout
    wanted = {"_COOPT_COMPLETE": "complete_bash", "COMP_WORDS": "coopt conf", "COMP_CWORD": "1"}
    asked = subprocess.run(
        [sys.executable, "-c", COOPT], capture_output=True, text=True, env=os.environ | wanted
    )
    assert asked.stdout.split() == ["config"]
