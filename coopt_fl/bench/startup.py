"""From the command to its first message, over importing and starting what nothing can avoid.

The message is sent when Flower hands it to its pool of actors, the processes of participants; in
neither case is it waited for them to be up.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.timing import in_turn, spread

REPEATS = 3
CASE = Case(
    "startup",
    "coopt run digits until its first message is sent to a participant",
    "importing torch and flwr, ray.init and the actor pool alone",
    Reach(1.3, at_least=False),
)
SIGN = "here"

RUN = f"""
import os
from coopt_fl import cli, simulation

backend = simulation.backend

def watched(config):
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool as Pool
    submit = Pool.submit
    Pool.submit = lambda *given: os.write(1, b"{SIGN}\\n") and submit(*given)
    return backend(config)

simulation.backend = watched
cli.main()
"""

ALONE = f"""
import os, time
import torch
from coopt_fl.config import load_config
from coopt_fl.simulation import QUIET, backend
os.environ.update(QUIET)
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
pool = RayBackend(backend(load_config("digits")))
pool.build(lambda: None)
print("{SIGN}", flush=True)
time.sleep(600)
"""


def measure() -> Iterator[Row]:
    """Yield the row."""
    pairs = in_turn(_run, lambda: _until_sign(ALONE), REPEATS)
    yield CASE.measured(
        spread(ours / alone for ours, alone in pairs),
        seconds=spread(ours for ours, _ in pairs),
        alone_seconds=spread(alone for _, alone in pairs),
    )


def _run() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _until_sign(RUN, "run", "digits", "--out", f"{folder}/run")


def _until_sign(script: str, *arguments: str) -> float:
    """Return the seconds until a script says that it is there; then kill it, and Ray with it."""
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
        raise RuntimeError(f"{' '.join(arguments) or 'the roofline'} ended before it began")
    return seconds
