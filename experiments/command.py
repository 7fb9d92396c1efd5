"""What all commands here have in common: ``--scale``, and one sentence where they cannot go on."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import click
import typer

from coopt_fl.core.errors import INTERRUPTED, ConfigError, CooptError
from coopt_fl.priors.spec import nearest
from experiments.scales import SCALES

Scale = Annotated[str, typer.Option(help=f"How large the studies are: {', '.join(SCALES)}.")]


def run(main: Callable[..., None], words: Sequence[str] | None = None) -> int:
    """Call ``main`` with what the command line says, and return its exit code.

    What is wrong with that is one sentence, without a traceback.

    Args:
        main: as typer has it.
        words: of the command line; None: those of this process.
    """
    app = typer.Typer(add_completion=False)
    app.command()(main)
    try:
        ended: Any = app(words, standalone_mode=False)
    except click.ClickException as error:
        return _told(error.format_message(), error.exit_code)
    except CooptError as error:
        return _told(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _told("interrupted; the same command continues", INTERRUPTED)
    return ended if isinstance(ended, int) else 0


def check(kind: str, words: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError, which names the nearest, unless all ``words`` are among the ``known``."""
    for word in words:
        if word not in known:
            raise ConfigError(
                f"there is no {kind} {word!r}{nearest(word, known)}; choose of {', '.join(known)}"
            )


def _told(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code
