"""The Flower ServerApp: run config in, platform, student and summary out."""

import shlex
import threading
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from coopt_fl.api import execute
from coopt_fl.config.load import load_config
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress, console_progress
from coopt_fl.data import Source
from coopt_fl.federation.state import RunState
from coopt_fl.report import console as show
from coopt_fl.report.console import PIPE_WIDTH
from coopt_fl.strategies.platform import OpenDataPlatform

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run ``config`` with ``overrides`` (KEY=VALUE, quoted as in a shell) into ``out``.

    Raises:
        CooptError: what went wrong; Flower reports the run as failed.
    """
    settings = context.run_config
    name = str(settings["config"])
    config = load_config(name, _words(str(settings["overrides"])))
    out = Path(str(settings["out"]) or Path.home() / "coopt-runs" / Path(name).stem)

    def optimize(config: Config, source: Source, state: RunState, progress: Progress) -> None:
        OpenDataPlatform(config, source, state, progress, threading.Event()).start(grid)

    with console_progress() as progress:
        summary = execute(config, out.expanduser(), progress, optimize)
    Console(width=PIPE_WIDTH).print(show.summary(summary))


def _words(overrides: str) -> list[str]:
    try:
        return shlex.split(overrides)
    except ValueError as error:
        raise ConfigError(f"overrides={overrides!r}: {error}; quote it as in a shell") from None
