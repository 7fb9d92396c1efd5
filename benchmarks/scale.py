"""ImageNet-1K's size: 1,281,167 x 512 targets through a simulation and through a deployment.

``python -m benchmarks.scale [NAME]... [--out FILE]``, in a checkout: it uses the tests' helpers.
The priors do nothing but multiply small synthetic images, so what is measured is everything
else: messages, checks, disk. The run is stopped once the dataset is published.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from coopt_fl.bench.results import results_of
from coopt_fl.core.files import write_json
from tests.e2e.conftest import Shell, free_port, kill_session
from tests.e2e.network import Network

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


def simulation() -> dict[str, Any]:
    """Measure ``coopt run``."""
    with _shell() as (shell, config):
        out = shell.folder / "out"
        run = shell.start("coopt", "run", config, "--out", str(out))
        return _watch(run, out, {"platform": lambda: psutil.Process(run.pid)}, [run])


def deployment() -> dict[str, Any]:
    """Measure a SuperLink, three SuperNodes and a run, all on this host."""
    return _deployed("flower")


def deployment_out_of_band() -> dict[str, Any]:
    """Measure the same with payloads that go through a folder."""
    return _deployed("folder")


def _deployed(route: str) -> dict[str, Any]:
    with _shell() as (shell, config):
        folder = shell.folder / "payloads"
        network = Network(shell, config, f"payload.route={folder}" if route == "folder" else "")
        network.join(*NAMES)
        run = network.submit()
        watched = {
            "platform": network.platform,
            "SuperLink": lambda: psutil.Process(network.link.pid),
        }
        processes = [network.link, *network.nodes.values()]
        return _watch(run, network.out, watched, processes)


@contextmanager
def _shell() -> Iterator[tuple[Shell, str]]:
    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(Path(folder), free_port())
        config = Path(folder) / "scale.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        try:
            yield shell, str(config)
        finally:
            for process in shell.started:
                kill_session(process.pid)


def _watch(
    run: subprocess.Popen[str],
    out: Path,
    watched: dict[str, Callable[[], psutil.Process]],
    processes: list[subprocess.Popen[str]],
) -> dict[str, Any]:
    """Look at memory and CPU time until the dataset is fused; return what was seen.

    Memory is unique set size, counted from the first optimize request for the growth.
    """
    peaks, before, spent = (
        dict.fromkeys(watched, 0.0),
        dict.fromkeys(watched, 0.0),
        dict[tuple[int, float], float](),
    )
    spent_on = out / "state" / "seconds.json"
    while not (spent_on.exists() and "fuse" in json.loads(spent_on.read_text())):
        assert run.poll() is None, "the run ended too early"
        working = (out / "state" / "blocks").exists()
        for name, find in watched.items():
            used = _uss(find())
            peaks[name] = max(peaks[name], used)
            before[name] = before[name] if working else used
        spent |= _cpu_seconds(processes)
        time.sleep(LOOK_SECONDS)
    seconds = json.loads(spent_on.read_text())
    work = seconds["optimize"]
    return {
        "gigabytes": GIGABYTES,
        "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
        "MB_per_s_optimize": round(1000 * GIGABYTES / work, 1),
        "cpu_seconds_per_GB": round(sum(spent.values()) / GIGABYTES, 1),
        "peak_MB": {name: round(value) for name, value in peaks.items()},
        "growth_MB": {name: round(peaks[name] - before[name]) for name in peaks},
    }


def _cpu_seconds(processes: list[subprocess.Popen[str]]) -> dict[tuple[int, float], float]:
    """Return user and system seconds of these processes and all that they have started."""
    found = {}
    for process in processes:
        for one in _family(process.pid):
            try:
                times = one.cpu_times()
                found[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue
    return found


def _family(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _uss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().uss) / 1e6
    except psutil.Error:
        return 0.0


MEASURED = {
    "simulation": simulation,
    "deployment": deployment,
    "deployment-out-of-band": deployment_out_of_band,
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
