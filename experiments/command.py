"""Common parts of the commands here: ``--scale``, and errors as one sentence."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import click
import typer

from coopt_fl.core.errors import INTERRUPTED, ConfigError, CooptError
from coopt_fl.priors.spec import nearest
from experiments.scales import SCALES

Scale = Annotated[str, typer.Option(help=f"Size of the studies: {', '.join(SCALES)}.")]


def run(main: Callable[..., None], words: Sequence[str] | None = None) -> int:
    """Run ``main`` as a typer command, and return its exit code.

    Expected errors are printed as one sentence, without a traceback.

    Args:
        main: a function with typer's annotations.
        words: the arguments; None for those of this process.
    """
    app = typer.Typer(add_completion=False)
    app.command()(main)
    try:
        ended: Any = app(words, standalone_mode=False)
    except click.ClickException as error:
        return _failed(error.format_message(), error.exit_code)
    except CooptError as error:
        return _failed(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted; the same command continues", INTERRUPTED)
    return ended if isinstance(ended, int) else 0


def check(kind: str, words: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError, with the nearest known word, unless all ``words`` are ``known``."""
    for word in words:
        if word not in known:
            raise ConfigError(
                f"there is no {kind} {word!r}{nearest(word, known)}; choose from {', '.join(known)}"
            )


def _failed(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code
