"""Arguments and options that several commands have, and how they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

from coopt_fl.core.progress import Level

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="A name in conf/ or a YAML file (default: digits), then settings to change, such as "
        "seed=1 or participants.1.prior=timm:resnet18.a1_in1k.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as student.epochs=5."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Output directory (default: runs/CONFIG, with a suffix for changed data settings).",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Make the last line of stdout the result as JSON.")
]
Dataset = Annotated[Path, typer.Argument(help="A run directory, or the dataset folder in it.")]
Checkpoint = Annotated[
    Path, typer.Argument(help="A student's checkpoint (.pt), or the directory of its run.")
]
Elsewhere = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[data.KEY=VALUE]...", help="Other images to judge it on, such as data.root=DIR."
    ),
]
CodeOfStudent = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="plugins and student.model, if your own code built it."
    ),
]
Devices = Annotated[int | None, typer.Option(min=1, help="Number of devices (default: all).")]


def level() -> Level:
    """Return how much progress the options of this command ask for."""
    asked = click.get_current_context().find_root().params
    return "quiet" if asked["quiet"] else "verbose" if asked["verbose"] else "normal"


def named(settings: list[str] | None, default: str = "digits") -> tuple[str, list[str]]:
    """Split settings into the configuration's name, which comes first without '=', and changes."""
    name, *changes = settings or [default]
    return (default, [name, *changes]) if "=" in name else (name, changes)


def checked(settings: list[str] | None, more: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Like :func:`named`, but load it as a check, before a command's imports, which take seconds.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    from coopt_fl.config.load import load_config

    name, changes = named(settings)
    changes += more
    load_config(name, changes)
    return name, changes
