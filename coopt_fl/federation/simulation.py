"""The one place that starts a Flower simulation in-process."""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core.apart import run_apart
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Level, Progress, console_progress
from coopt_fl.federation.backend import ENVIRONMENT, backend, begin_ray
from coopt_fl.given import take_parts

IMPORTED = (
    "flwr.simulation",
    "coopt_fl.federation.client_app",
    "coopt_fl.strategies.platform",
)


def simulate(config: Config, out: Path, progress: Progress) -> None:
    """Optimize the data with all participants on this host, through Flower and Ray.

    The caller's logging, environment and signals are left as they were. Where the caller uses Ray,
    the simulation runs in a process of its own: Flower would end the caller's session.

    Raises:
        CooptError: whatever the platform raised.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        run_apart(
            f"{__name__}:simulate_job",
            config=asdict(config),
            out=str(out.resolve()),
            level=progress.level,
        )
    else:
        _simulate_here(config, out, progress)


def simulate_job(config: dict[str, Any], out: str, level: Level) -> None:
    """Simulate a run, given as plain values, in this process."""
    take_parts(config["plugins"])
    with console_progress(level) as progress:
        _simulate_here(from_tree(config, [], "the run"), Path(out), progress)


def _simulate_here(config: Config, out: Path, progress: Progress) -> None:
    stopped, outcome = threading.Event(), list[BaseException | None]()
    verbose = progress.level == "verbose"
    try:
        with _quiet(verbose), _interruptible(stopped):
            with progress.phase("describe", "(starting Ray, up to a minute)"):
                settings = _begin(config, verbose)
            from flwr.app import Context
            from flwr.serverapp import Grid, ServerApp
            from flwr.simulation import run_simulation

            from coopt_fl.federation.client_app import app as client_app
            from coopt_fl.strategies.platform import OpenDataPlatform

            server_app = ServerApp()

            @server_app.main()
            def main(grid: Grid, context: Context) -> None:
                try:
                    OpenDataPlatform(
                        config,
                        out,
                        progress=progress,
                        stopped=stopped,
                        own_host=config.simulation.address is None,
                    ).start(grid)
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(error)

            run_simulation(
                server_app=server_app,
                client_app=client_app,
                num_supernodes=len(config.participants),
                backend_config=settings,
            )
    except RuntimeError as error:
        raise ParticipantError(f"the simulation broke down: {_origin(error)}") from error
    finally:
        stopped.set()
    if not outcome:
        raise ParticipantError("the simulation ended before the platform did; run it again")
    if outcome[0] is not None:
        raise outcome[0]


@contextmanager
def _quiet(verbose: bool = False) -> Iterator[None]:
    """Silence Flower and Ray, and let actors import what this process can, until the block ends.

    Flower sets the level of its logger when it is imported, so it is imported here first. With
    ``verbose``, its log stays as it is.
    """
    before = dict(os.environ)
    imports = {"PYTHONPATH": os.pathsep.join(sys.path)}
    os.environ.update(
        {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
        | imports
        | _home()
    )
    import flwr.supercore.logger  # noqa: F401

    logger = logging.getLogger("flwr")
    level = logger.level
    if not verbose:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _begin(config: Config, verbose: bool) -> Any:
    """Start or join Ray, and return its settings.

    Meanwhile a thread imports what the simulation needs, which takes about as long.
    """
    settings = backend(config)
    if verbose:
        settings["init_args"] |= {"logging_level": "INFO", "log_to_driver": True}
    with ThreadPoolExecutor(1) as beside:
        imported = beside.submit(lambda: [import_module(name) for name in IMPORTED])
        try:
            begin_ray(config, settings)
            imported.result()
        except BaseException:
            import_module("ray").shutdown()  # else the next run would take it for its caller's
            raise
    return settings


def _home() -> dict[str, str]:
    """Return where Flower keeps its files if there is no home directory."""
    try:
        Path.home()
    except RuntimeError:
        return {"HOME": str(cache_dir())}
    return {}


def _origin(error: BaseException) -> BaseException:
    """Return the original error, which Flower wraps twice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _interruptible(stopped: threading.Event) -> Iterator[None]:
    """Let Ctrl-C stop the platform even where Ray or Flower lose the KeyboardInterrupt."""

    def stop(*_: object) -> None:
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # it alone gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
