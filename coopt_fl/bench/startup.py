"""Start-up times: of importing the package, of the help, and of a run until its first message.

A run's first message counts as sent when Flower submits it to its pool of actors (the participants'
processes), whether or not these have started.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from coopt_fl.bench.measure import Case, Reach, Row, Seconds, in_turn, spread, timed

REPEATS = 3
PAIRS = 9
"""Repeats of ``imports``, which is fast."""

WHAT = {
    "import": ("import coopt_fl", ("-c", "import coopt_fl")),
    "help": ("coopt --help", ("-m", "coopt_fl", "--help")),
}
CASE = Case(
    "startup",
    "coopt run digits until its first message is sent to a participant",
    "importing torch and flwr, ray.init and the actor pool alone",
    Reach(1.3, at_least=False),
)
SIGN = "here"

RUN = f"""
import os
from coopt_fl.cli.main import main
from coopt_fl.federation import simulation

backend = simulation.backend

def watched(config):
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool as Pool
    submit = Pool.submit
    Pool.submit = lambda *given: os.write(1, b"{SIGN}\\n") and submit(*given)
    return backend(config)

simulation.backend = watched
main()
"""

ALONE = f"""
import os, time
import torch
from coopt_fl.config.load import load_config
from coopt_fl.federation.backend import ENVIRONMENT, backend
os.environ.update(ENVIRONMENT)
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
pool = RayBackend(backend(load_config("digits")))
pool.build(lambda: None)
print("{SIGN}", flush=True)
time.sleep(600)
"""


def startup() -> Iterator[Row]:
    """Yield the row."""
    ours, alone = in_turn(_run, lambda: _until_sign(ALONE), REPEATS)
    yield CASE.measured(spread(ours / alone), seconds=spread(ours), alone_seconds=spread(alone))


def imports() -> Iterator[Row]:
    """Yield a row for each command of WHAT, in seconds more than ``python -c pass``."""
    for name, (path, arguments) in WHAT.items():
        case = Case(f"imports/{name}", path, "python -c pass", Reach(0.5, at_least=False), "s more")
        whole, nothing = in_turn(_python(*arguments), _python("-c", "pass"), PAIRS)
        yield case.measured(
            spread(whole - nothing),
            seconds=spread(whole),
            python_seconds=spread(nothing),
        )


def _run() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _until_sign(RUN, "run", "digits", "--out", f"{folder}/run")


def _until_sign(script: str, *arguments: str) -> float:
    """Return the seconds until a script prints SIGN; then kill its process group, including Ray."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            seen = any(line.strip() == SIGN for line in process.stdout)
            seconds = time.perf_counter() - started
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    if not seen:
        raise RuntimeError(f"{' '.join(arguments) or 'the roofline'} ended before its first sign")
    return seconds


def _python(*arguments: str) -> Seconds:
    command = [sys.executable, *arguments]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
