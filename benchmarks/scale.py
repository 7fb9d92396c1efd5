"""ImageNet-1K's size: 1,281,167 x 512 targets through a simulation and through a deployment.

``python -m benchmarks.scale [NAME]... [--out FILE]``, in a checkout with the extra ``dev``.
The priors do nothing but multiply small synthetic images, so what is measured is everything
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
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from coopt_fl.bench.suite import results_of
from coopt_fl.core.files import write_json
from coopt_fl.ops.certificates import make_certificate

ROOT = Path(__file__).parents[1]
ROWS, DIM = 1_281_167, 512
GIGABYTES = ROWS * DIM * 2 / 1e9
NAMES = ("alpha", "beta", "gamma")
LOOK_SECONDS = 0.5

CONFIG: dict[str, Any] = {
    "data": {"source": "synthetic", "limit": ROWS},
    "participants": [{"name": name, "prior": f"trivial:{512 + i}"} for i, name in enumerate(NAMES)],
    "shared": {"size": 1100},
    "targets": {"dim": DIM},
    "optimize": {"block_rows": 4096, "batch_size": 1024, "chunk_mb": 32},
    "student": {"model": "convnet:4", "epochs": 1},
}


class Host:
    """psutil.Popens that run in ``folder``, with a Flower home of their own.

    Attributes:
        started: every program so far.
        config: the configuration's file.
        out: the run directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, list[psutil.Popen]()
        self.config, self.out = folder / "scale.yaml", folder / "out"
        self.config.write_text(yaml.safe_dump(CONFIG))

    def start(self, *command: str | Path) -> psutil.Popen:
        """Start a program of this environment; its output goes to a file of its name."""
        programs = Path(sys.executable).parent
        env = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        command = (programs / command[0], *command[1:])
        with (self.folder / f"{command[0].name}.log").open("ab") as log:
            program = psutil.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        self.started.append(program)
        return program


@contextmanager
def running() -> Iterator[Host]:
    """Yield a host; at the end whatever it has started is killed, and has ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        host = Host(Path(folder))
        try:
            yield host
        finally:
            left = [one for program in host.started for one in _family(program)]
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left)


def simulation() -> dict[str, Any]:
    """Measure ``coopt run``."""
    with running() as host:
        run = host.start("coopt", "run", host.config, "--out", host.out)
        return _watch(run, host.out, {"platform": lambda: run}, [run])


def deployment(*, out_of_band: bool = False) -> dict[str, Any]:
    """Measure a SuperLink, three SuperNodes and a run, all on this host.

    As docs/deployment.md does it, but on loopback, without nginx and registered keys.

    Args:
        out_of_band: payloads go through a folder.
    """
    with running() as host:
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
        run = host.start("flwr", "run", ROOT, "here", "--stream", "--run-config", settings)
        watched = {"platform": lambda: _server_app(link), "SuperLink": lambda: link}
        return _watch(run, host.out, watched, processes)


def _server_app(link: psutil.Process) -> psutil.Process:
    """Wait for the platform's process, which the SuperLink starts."""
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
    run: psutil.Popen,
    out: Path,
    watched: dict[str, Callable[[], psutil.Process]],
    processes: list[psutil.Popen],
) -> dict[str, Any]:
    """Look at memory and CPU time until the dataset is fused; return what was seen.

    Memory is unique set size, counted from the first optimize request for the growth.
    """
    peaks, before = dict.fromkeys(watched, 0.0), dict.fromkeys(watched, 0.0)
    spent = dict[tuple[int, float], float]()
    seconds, record = dict[str, float](), out / "state" / "seconds.json"
    while "fuse" not in seconds:
        assert run.poll() is None, "the run ended too early"
        working = (out / "state" / "blocks").exists()
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
        seconds = json.loads(record.read_text()) if record.exists() else {}
    return {
        "gigabytes": GIGABYTES,
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "MB_per_s_optimize": round(1000 * GIGABYTES / seconds["optimize"], 1),
        "cpu_seconds_per_GB": round(sum(spent.values()) / GIGABYTES, 1),
        "peak_MB": {name: round(value) for name, value in peaks.items()},
        "growth_MB": {name: round(peaks[name] - before[name]) for name in peaks},
    }


def _family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it has started, unless it has ended."""
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


MEASURED = {
    "simulation": simulation,
    "deployment": deployment,
    "deployment-out-of-band": lambda: deployment(out_of_band=True),
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(MEASURED)}.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the results here as JSON.")] = None,
) -> None:
    """Measure and print."""
    found = results_of(["python -m benchmarks.scale", *(names or [])])
    for name in names or MEASURED:
        row = {"name": name, "details": MEASURED[name]()}
        print(json.dumps(row, indent=1), flush=True)
        found["rows"].append(row)
        if out is not None:
            write_json(out, found)


if __name__ == "__main__":
    typer.run(main)
