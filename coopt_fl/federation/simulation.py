"""The one place that starts a Flower simulation in-process."""

import logging
import math
import os
import signal
import socket
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
from coopt_fl.core.errors import ConfigError, ParticipantError
from coopt_fl.core.host import shared_by
from coopt_fl.core.progress import Level, Progress, console_progress
from coopt_fl.given import take_parts

TRIES = 3  # of starting Ray
ADVICE = {
    "AF_UNIX": "Set RAY_TMPDIR to a folder with a shorter path, such as /tmp",
    "No space left": "Free some space there, or set RAY_TMPDIR to a folder on another disk",
    "Permission": "Set RAY_TMPDIR to a folder that you can write to",
    "Read-only": "Set RAY_TMPDIR to a folder that can be written",
    "Too many open files": "Raise the limit of open files (ulimit -n)",
    "memory": "Free some memory, or lower simulation.actors",
    "imed out": "This host is very busy: run it again when it is less so",
    "Timeout": "This host is very busy: run it again when it is less so",
}
"""What to do about a failure of Ray, by words in what it says."""

LONGEST_FOLDER = 36  # bytes: a socket's path has at most 107, of which Ray takes up to 70
SECONDS_TO_ANSWER = 5  # of a cluster that is to be joined
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # simulation.gpus=0 hides the GPUs from an actor
}
IMPORTED = (
    "flwr.simulation",
    "coopt_fl.federation.client_app",
    "coopt_fl.strategies.platform",
)
PASSED = ("PYTHONPATH", "COOPT_CACHE")
"""Also passed to participants on a cluster, which was started in another environment."""


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

    Flower sets the level of its logger when it is imported, so it is imported here first. What is
    ``verbose`` leaves its log as it is.
    """
    before = dict(os.environ)
    imports = {"PYTHONPATH": os.pathsep.join(sys.path)}
    os.environ.update(
        {name: os.environ.get(name, value) for name, value in QUIET.items()} | imports | _home()
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
        if config.simulation.address is None:
            with shared_by(_actors(settings)):
                _start_ray(settings["init_args"])
        else:
            _join_ray(settings["init_args"])
            settings["client_resources"] = _of_cluster(config)
        imported.result()
    return settings


def _actors(settings: Any) -> int:
    """Return how many actors these settings of Ray make room for."""
    return int(settings["init_args"]["num_cpus"] // settings["client_resources"]["num_cpus"])


def _home() -> dict[str, str]:
    """Return where Flower keeps its files if there is no home directory."""
    try:
        Path.home()
    except RuntimeError:
        return {"HOME": str(cache_dir())}
    return {}


def _start_ray(settings: dict[str, Any]) -> None:
    """Start Ray, which Flower then finds running.

    Ray gives its agents 15 seconds to start and its node 30, whatever the host is doing, and
    neither can be set (ray-project/ray#65983): on a busy host it is tried again.
    """
    import ray

    for attempt in range(1, TRIES + 1):
        try:
            ray.init(**settings)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == TRIES:
                raise ParticipantError(
                    f"Ray did not start in {TRIES} attempts: {' '.join(str(error).split())} "
                    f"{_advice(error)}"
                ) from error


def _advice(error: Exception) -> str:
    """Return what to do where Ray cannot start, by what it says."""
    said = f"{type(error).__name__} {error}"
    found = [f"{advice}. " for words, advice in ADVICE.items() if words in said][:1]
    default = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    place = _short_folder().get("_temp_dir", f"{default}/ray")
    return f"{''.join(found)}Its log is in {place}/session_latest/logs"


def _join_ray(settings: dict[str, Any]) -> None:
    """Join a running cluster, which Flower then finds joined.

    Raises:
        ConfigError: there is none, it is of another version, or this host is no part of it.
    """
    import ray

    address = settings["address"]
    try:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()  # Ray takes minutes
        ray.init(**settings)
    except Exception as error:
        ray.shutdown()
        raise ConfigError(
            f"simulation.address={address} cannot be joined ({' '.join(str(error).split())}); "
            f"start Ray {ray.__version__} there and on this host with `ray start`, or leave the "
            "key out for a Ray of its own"
        ) from error


def _of_cluster(config: Config) -> dict[str, float]:
    """Return what one actor reserves of the cluster that was joined; Flower starts all that fit."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return _reserved(config, int(resources.get("GPU", 0)))


def _origin(error: BaseException) -> BaseException:
    """Return what first went wrong: Flower wraps it twice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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

    Of a cluster only Flower knows how many that are, and what one reserves is found out once it is
    joined.

    Raises:
        ConfigError: the GPUs asked for are not there, or what a cluster cannot be asked for.
    """
    simulation, people = config.simulation, len(config.participants)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if simulation.address is not None:
        passed = {name: value for name, value in os.environ.items() if name in {*QUIET, *PASSED}}
        quiet |= {"address": simulation.address, "runtime_env": {"env_vars": passed}}
        return {"init_args": quiet}
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    one = _reserved(config, gpus)
    each, share = one["num_cpus"], one["num_gpus"]
    fit = math.floor((gpus / share if share else cpus / each) + 1e-9)  # 1 // 0.1 is 9
    actors = simulation.actors or max(1, min(fit, people))
    own = {
        "address": "local",  # whatever cluster RAY_ADDRESS names
        "num_cpus": math.ceil(actors * each),
        "num_gpus": gpus if share else 0,
        "include_dashboard": False,
    }
    return {"init_args": quiet | own | _short_folder(), "client_resources": one}


def _short_folder() -> dict[str, str]:
    """Return where Ray keeps its sockets, if TMPDIR is too long for the paths of these."""
    folder = os.environ.get("TMPDIR", "")
    fits = len(os.fsencode(folder)) <= LONGEST_FOLDER or "RAY_TMPDIR" in os.environ
    return {} if fits else {"_temp_dir": "/tmp/ray"}


def _reserved(config: Config, gpus: int) -> dict[str, float]:
    """Return what one actor reserves where there are so many GPUs.

    Raises:
        ConfigError: it is asked for more of them.
    """
    simulation, people = config.simulation, len(config.participants)
    share = min(1.0, gpus / people) if simulation.gpus is None else simulation.gpus
    if share > gpus:
        where = "this host" if simulation.address is None else f"the Ray at {simulation.address}"
        raise ConfigError(
            f"simulation.gpus={share:g} is more than the {gpus} GPUs of {where}; allowed: 0 "
            "(compute on the CPU) up to that"
        )
    each = max(1.0, simulation.cpus)  # else more actors than asked for would fit
    return {"num_cpus": each, "num_gpus": share}
