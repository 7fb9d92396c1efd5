"""Ray for the simulation: how it is started or joined, and what each actor reserves."""

import math
import os
import socket
from typing import Any

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, ParticipantError
from coopt_fl.core.host import SHARE, shared_by
from coopt_fl.registry import KEYS, PARTS

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
"""What to do when Ray fails, by words in its error message."""

LONGEST_FOLDER = 36  # bytes: a socket's path has at most 107, of which Ray takes up to 70
SECONDS_TO_ANSWER = 5  # timeout for connecting to a cluster
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # simulation.gpus=0 hides the GPUs from an actor
    "RAY_worker_niceness": "0",  # with Ray's 15, actors get no time on a busy host
}
"""Of Flower and Ray in a simulation, unless the caller's environment says otherwise."""

PASSED = ("PYTHONPATH", "COOPT_CACHE")
"""Also passed to participants on a cluster, which was started in another environment."""


def backend(config: Config) -> Any:
    """Return Ray's settings: as many actors as fit, never more than participants.

    On a cluster, Flower finds out how many actors fit, and :func:`begin_ray` adds what each one
    reserves.

    Raises:
        ConfigError: there are fewer GPUs than asked for, or a cluster is asked for a part that
            only this program has.
    """
    simulation, people = config.simulation, len(config.participants)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if simulation.address is not None:
        _refuse_program_objects(config)
        known = {*ENVIRONMENT, *PASSED}
        passed = {name: value for name, value in os.environ.items() if name in known}
        passed[SHARE] = str(max(1, int(simulation.cpus)))  # it uses the cores that it reserves
        quiet |= {"address": simulation.address, "runtime_env": {"env_vars": passed}}
        return {"init_args": quiet}
    import torch

    cpus, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    one = _reserved(config, gpus)
    each, share = one["num_cpus"], one["num_gpus"]
    fit = math.floor((gpus / share if share else cpus / each) + 1e-9)  # 1 // 0.1 is 9
    actors = simulation.actors or max(1, min(fit, people))
    own = {
        "address": "local",  # even if RAY_ADDRESS names a cluster
        "num_cpus": math.ceil(actors * each),
        "num_gpus": gpus if share else 0,
        "include_dashboard": False,
    }
    return {"init_args": quiet | own | _short_folder(), "client_resources": one}


def _refuse_program_objects(config: Config) -> None:
    """Refuse parts that participants on a cluster need but only this program has.

    Raises:
        ConfigError: a prior, or a part by which participants compute, is an object of the program.
    """
    needed = {
        "prior": [participant.prior for participant in config.participants],
        "source": [config.data.source],
        "solver": [config.targets.solver],
        "projection": [config.targets.projection],
    }
    for kind, names in needed.items():
        for name in names:
            part = PARTS.find(kind, name)
            if name.startswith("module:") or not (part.shipped or part.plugin):
                raise ConfigError(
                    f"{KEYS[kind]}={name} is an object of this program, which other hosts of the "
                    f"cluster at {config.simulation.address} do not have: register it in a .py "
                    "file, and name that in plugins, or leave simulation.address out"
                )


def _short_folder() -> dict[str, str]:
    """Return the folder for Ray's files, if the path of TMPDIR is too long for its sockets."""
    folder = os.environ.get("TMPDIR", "")
    fits = len(os.fsencode(folder)) <= LONGEST_FOLDER or "RAY_TMPDIR" in os.environ
    return {} if fits else {"_temp_dir": "/tmp/ray"}


def _reserved(config: Config, gpus: int) -> dict[str, float]:
    """Return the CPUs and GPUs that one actor reserves, of ``gpus`` GPUs in all.

    Raises:
        ConfigError: more GPUs are asked for than there are.
    """
    simulation, people = config.simulation, len(config.participants)
    share = min(1.0, gpus / people) if simulation.gpus is None else simulation.gpus
    if share > gpus:
        where = "this host" if simulation.address is None else f"the Ray at {simulation.address}"
        raise ConfigError(
            f"simulation.gpus={share:g} is more than the {gpus} GPUs of {where}; allowed: from 0 "
            f"(compute on the CPU) to {gpus}"
        )
    each = max(1.0, simulation.cpus)  # else more actors than asked for would fit
    return {"num_cpus": each, "num_gpus": share}


def begin_ray(config: Config, settings: Any) -> None:
    """Start or join Ray, which Flower then finds, and complete its ``settings``.

    Raises:
        ConfigError: a cluster cannot be joined, or lacks the GPUs.
        ParticipantError: Ray does not start.
    """
    if config.simulation.address is None:
        with shared_by(_actors(settings)):
            _start_ray(settings["init_args"])
    else:
        _join_ray(settings["init_args"])
        settings["client_resources"] = _reserved_on_cluster(config)


def _actors(settings: Any) -> int:
    """Return how many actors these settings of Ray make room for."""
    return int(settings["init_args"]["num_cpus"] // settings["client_resources"]["num_cpus"])


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
    """Return what to do when Ray cannot start, and where its log is."""
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
        place = host.strip("[]"), int(port)
        socket.create_connection(place, SECONDS_TO_ANSWER).close()  # Ray would wait for minutes
        ray.init(**settings)
    except Exception as error:
        ray.shutdown()
        raise ConfigError(
            f"simulation.address={address} cannot be joined ({' '.join(str(error).split())}); "
            f"start Ray {ray.__version__} there and on this host with `ray start`, or leave the "
            "key out for a Ray of its own"
        ) from error


def _reserved_on_cluster(config: Config) -> dict[str, float]:
    """Return what one actor reserves of the cluster that was joined; Flower starts all that fit."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return _reserved(config, int(resources.get("GPU", 0)))
