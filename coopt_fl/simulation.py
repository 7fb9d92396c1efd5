"""The one place that starts a Flower simulation in-process."""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coopt_fl.data import Source
from coopt_fl.errors import ConfigError, ParticipantError
from coopt_fl.optimized.state import RunState
from coopt_fl.progress import Silent
from coopt_fl.schema import Config

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # simulation.gpus=0 hides the GPUs from an actor
}


def simulate(config: Config, source: Source, state: RunState, progress: Silent) -> None:
    """Optimize the data with all participants on this host, through Flower and Ray.

    Raises:
        CooptError: whatever the platform raised.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from coopt_fl.client_app import app as client_app
    from strategies.platform import OpenDataPlatform

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    stopped, outcome = threading.Event(), list[BaseException | None]()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            OpenDataPlatform(config, source, state, progress, stopped).start(grid)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    try:
        with _interruptible(stopped):
            run_simulation(
                server_app=server_app,
                client_app=client_app,
                num_supernodes=len(config.participants),
                backend_config=backend(config),
            )
    except RuntimeError as error:
        stopped.set()
        raise ParticipantError(f"the simulation broke down: {error}") from error
    finally:
        stopped.set()
    if not outcome:
        raise ParticipantError("the simulation ended before the platform did; run it again")
    if outcome[0] is not None:
        raise outcome[0]


@contextmanager
def _interruptible(stopped: threading.Event) -> Iterator[None]:
    """Let Ctrl-C stop the platform even where Ray or Flower lose the KeyboardInterrupt."""

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which gets no signals
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def backend(config: Config) -> Any:
    """Return Ray's settings: as many actors as fit, never more than participants.

    Raises:
        ConfigError: the GPUs asked for are not there.
    """
    import torch

    simulation, people = config.simulation, len(config.participants)
    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    share = min(1.0, gpus / people) if simulation.gpus is None else simulation.gpus
    if share > gpus:
        raise ConfigError(
            f"simulation.gpus={share:g} is more than the {gpus} GPUs of this host; allowed: 0 "
            "(compute on the CPU) up to that"
        )
    fit = int(gpus // share) if share else int(cpus // simulation.cpus)
    actors = simulation.actors or max(1, min(fit, people))
    return {
        "init_args": {
            "num_cpus": math.ceil(actors * simulation.cpus),
            "num_gpus": gpus if share else 0,
            "include_dashboard": False,
            "logging_level": "ERROR",
            "log_to_driver": False,
        },
        "client_resources": {"num_cpus": simulation.cpus, "num_gpus": share},
    }
