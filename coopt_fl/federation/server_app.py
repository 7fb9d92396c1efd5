"""The Flower ServerApp: runs the whole job of a configuration and prints its summary."""

import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from coopt_fl.config.load import load_config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import expanded
from coopt_fl.core.progress import console_progress
from coopt_fl.federation.job import whole_job
from coopt_fl.report import console as show
from coopt_fl.report.terminal import PIPE_WIDTH
from coopt_fl.strategies.platform import OpenDataPlatform

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run ``config`` with ``overrides`` (KEY=VALUE, quoted as in a shell) into ``out``.

    Raises:
        CooptError: the job failed; Flower reports the run as failed.
    """
    settings = context.run_config
    name, text = str(settings["config"]), str(settings["overrides"])
    try:
        overrides = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"overrides={text!r}: {error}; quote it as in a shell") from None
    config = load_config(name, overrides)
    out = expanded(str(settings["out"]) or f"~/coopt-runs/{Path(name).stem}")
    with console_progress() as progress:
        summary = whole_job(
            config,
            out,
            progress,
            lambda: OpenDataPlatform(config, out, progress=progress).start(grid),
            own_priors=False,
        )
    Console(width=PIPE_WIDTH).print(show.summary(summary))
