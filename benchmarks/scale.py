"""A run at ImageNet-1K's size, 1,281,167 x 512 targets, in a simulation and in a deployment.

``python -m benchmarks.scale [NAME]... [--scale smoke]``, in a checkout with the extra ``dev``.
The priors are trivial linear maps of small synthetic images, so the cost is that of everything
else: messages, checks, disk. The run is stopped once the dataset is published.
"""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from coopt_fl.bench.suite import results_of
from coopt_fl.core.files import write_json
from coopt_fl.federation.state import RunState
from coopt_fl.ops.certificates import make_certificate
from experiments.command import check, run

ROOT = Path(__file__).parents[1]
NAMES = ("alpha", "beta", "gamma")
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Size:
    """Number and width of the targets."""

    rows: int
    dim: int

    @property
    def gigabytes(self) -> float:
        """Size of all targets."""
        return self.rows * self.dim * 2 / 1e9

    def config(self) -> dict[str, Any]:
        """Return the configuration of a run."""
        priors = [f"trivial:{self.dim + i}" for i in range(len(NAMES))]
        people = zip(NAMES, priors, strict=True)
        return {
            "data": {"source": "synthetic", "limit": self.rows},
            "participants": [{"name": name, "prior": prior} for name, prior in people],
            "shared": {"size": 2 * self.dim + 76},
            "targets": {"dim": self.dim},
            "optimize": {"block_rows": 4096, "batch_size": 1024, "chunk_mb": 32},
            "student": {"model": "convnet:4", "epochs": 1},
        }


SIZES = {"smoke": Size(20_000, 32), "paper": Size(1_281_167, 512)}
"""Sizes by ``--scale``: one to check that all works, and that of ImageNet-1K."""


class Host:
    """Starts programs in ``folder``, with a Flower home of their own.

    Attributes:
        size: size of the dataset to make.
        started: all programs started so far.
        config: the configuration file.
        out: the run directory.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        self.size, self.folder, self.started = size, folder, list[psutil.Popen]()
        self.config, self.out = folder / "scale.yaml", folder / "out"
        self.config.write_text(yaml.safe_dump(size.config()))

    def start(self, *command: str | Path) -> psutil.Popen:
        """Start a program of this Python environment; its output goes to a log named after it."""
        programs = Path(sys.executable).parent
        env = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        with (self.folder / f"{Path(command[0]).name}.log").open("ab") as log:
            whole = (programs / command[0], *command[1:])
            program = psutil.Popen(whole, cwd=self.folder, env=env, stdout=log, stderr=log)
        self.started.append(program)
        return program


@contextmanager
def running(size: Size) -> Iterator[Host]:
    """Yield a host; at the end kill all programs that it started, and wait for them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        host = Host(Path(folder), size)
        try:
            yield host
        finally:
            left = [one for program in host.started for one in _family(program)]
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left)


def simulation(size: Size) -> dict[str, Any]:
    """Measure ``coopt run``."""
    with running(size) as host:
        started = host.start("coopt", "run", host.config, "--out", host.out)
        return _watch(started, host, {"platform": lambda: started}, [started])


def deployment(size: Size, *, out_of_band: bool = False) -> dict[str, Any]:
    """Measure a SuperLink, three SuperNodes and a run, all on this host.

    The set-up is that of docs/deployment.md, but on loopback, without nginx and registered keys.

    Args:
        size: size of the dataset.
        out_of_band: whether payloads go through a folder instead of messages.
    """
    with running(size) as host:
        tls, address = host.folder / "tls", f"127.0.0.1:{_free_port()}"
        make_certificate(["localhost"], tls)
        (host.folder / "config.toml").write_text(
            f'[superlink.here]\naddress = "{address}"\nroot-certificates = "{tls / "ca.crt"}"\n'
        )
        files = {"ca-certfile": "ca.crt", "certfile": "server.pem", "keyfile": "server.key"}
        options = [f"--ssl-{option}={tls / file}" for option, file in files.items()]
        options += ["--port", address.rpartition(":")[2], f"--database={host.folder / 'link.db'}"]
        link = host.start("flower-superlink", *options)
        while not _listening(address):
            time.sleep(LOOK_SECONDS)
        trusting = ("--superlink", address, "--root-certificates", tls / "ca.crt")
        for name in NAMES:
            own = ("--port", str(_free_port()), "--node-config", f'name="{name}"')
            host.start("flower-supernode", *trusting, *own)
        route = f"payload.route={host.folder / 'payloads'}" if out_of_band else ""
        settings = f"config='{host.config}' out='{host.out}' overrides='{route}'"
        processes = list(host.started)
        started = host.start("flwr", "run", ROOT, "here", "--stream", "--run-config", settings)
        watched = {"platform": lambda: _server_app(link), "SuperLink": lambda: link}
        return _watch(started, host, watched, processes)


def _server_app(link: psutil.Process) -> psutil.Process:
    """Wait for the platform's process, which the SuperLink starts, and return it."""
    while True:
        for process in _family(link):
            with suppress(psutil.Error):
                if any("serverapp" in Path(word).name for word in process.cmdline()[:3]):
                    return process
        time.sleep(LOOK_SECONDS)


def _listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(
    started: psutil.Popen,
    host: Host,
    watched: dict[str, Callable[[], psutil.Process]],
    processes: list[psutil.Popen],
) -> dict[str, Any]:
    """Track memory and CPU time until the dataset is fused; return the measurements.

    Memory is the unique set size; its growth is counted from the first optimize request.
    """
    peaks, before = dict.fromkeys(watched, 0.0), dict.fromkeys(watched, 0.0)
    spent = dict[tuple[int, float], float]()
    seconds, state = dict[str, float](), host.out / "state"
    while "fuse" not in seconds:
        assert started.poll() is None, "the run ended too early"
        working = (state / "blocks").exists()
        for name, find in watched.items():
            with suppress(psutil.Error):
                used = find().memory_full_info().uss / 1e6
                peaks[name] = max(peaks[name], used)
                before[name] = before[name] if working else used
        for one in [one for process in processes for one in _family(process)]:
            with suppress(psutil.Error):
                times = one.cpu_times()
                spent[one.pid, one.create_time()] = times.user + times.system
        time.sleep(LOOK_SECONDS)
        seconds = next(iter(RunState(host.out).attempts()), {})
    gigabytes = host.size.gigabytes
    return {
        "gigabytes": gigabytes,
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "MB_per_s_optimize": round(1000 * gigabytes / seconds["optimize"], 1),
        "cpu_seconds_per_GB": round(sum(spent.values()) / gigabytes, 1),
        "peak_MB": {name: round(value) for name, value in peaks.items()},
        "growth_MB": {name: round(peaks[name] - before[name]) for name in peaks},
    }


def _family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its descendants; none if it has ended."""
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


MEASURED: dict[str, Callable[[Size], dict[str, Any]]] = {
    "simulation": simulation,
    "deployment": deployment,
    "deployment-out-of-band": partial(deployment, out_of_band=True),
}


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"{', '.join(MEASURED)} (default: all)."),
    ] = None,
    scale: Annotated[str, typer.Option(help=f"Size of the dataset: {', '.join(SIZES)}.")] = "paper",
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
) -> None:
    """Measure a run at ImageNet-1K's size, and print time, memory and CPU time."""
    check("benchmark", names or [], MEASURED)
    check("--scale", [scale], SIZES)
    found = results_of(["python -m benchmarks.scale", *(names or []), f"--scale {scale}"])
    for name in names or MEASURED:
        row = {"name": name, "details": MEASURED[name](SIZES[scale])}
        print(json.dumps(row, indent=1), flush=True)
        found["rows"].append(row)
        if out is not None:
            write_json(out, found)


if __name__ == "__main__":
    sys.exit(run(main))
