"""Memory does not grow with the number of samples, neither the platform's nor a participant's."""

import time

import psutil
import pytest

from tests.e2e.conftest import Shell, kill_session

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ray")]

SETTINGS = (
    "targets.dim=32",
    "optimize.block_rows=5000",
    "optimize.batch_size=1000",
    "optimize.chunk_mb=16",
    "simulation.actors=1",
)
FEW, MANY = 100_000, 1_000_000


@pytest.mark.timeout(1800)
def test_memory_does_not_depend_on_the_number_of_samples(shell: Shell, tiny: str) -> None:
    few, many = (_peaks(shell, tiny, samples) for samples in (FEW, MANY))
    print(f"peak USS, MB: {FEW:,} samples {few}, {MANY:,} samples {many}")
    assert many["growth"] < 1000
    for side in ("platform", "participant"):
        assert many[side] - few[side] < 100


def _peaks(shell: Shell, tiny: str, samples: int) -> dict[str, float]:
    """Run until the dataset is published; return peak USS in MB.

    The platform's growth is counted from the last look before its first optimize message.
    """
    out = shell.folder / f"run-{samples}"
    command = ("coopt", "run", tiny, "--out", str(out), *SETTINGS, f"data.limit={samples}")
    running = shell.start(*command)
    peaks = {"platform": 0.0, "participant": 0.0}
    before = 0.0
    while not (out / "dataset" / "provenance.json").exists():
        assert running.poll() is None, (shell.folder / "log").read_text()
        platform = psutil.Process(running.pid)
        used = _uss(platform)
        if not (out / "state" / "shared_targets.npz").exists():
            before = used
        peaks["platform"] = max(peaks["platform"], used)
        peaks["participant"] = max(peaks["participant"], *map(_uss, _actors(platform)), 0.0)
        time.sleep(0.1)
    kill_session(running.pid)
    running.wait()
    return peaks | {"growth": peaks["platform"] - before}


def _actors(platform: psutil.Process) -> list[psutil.Process]:
    """Return the processes in which participants work."""
    children = platform.children(recursive=True)
    return [child for child in children if "ClientAppActor" in " ".join(_words(child))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _uss(process: psutil.Process) -> float:
    """Return the memory that would be free if the process ended, in MB."""
    try:
        return float(process.memory_full_info().uss) / 1e6
    except psutil.Error:
        return 0.0
