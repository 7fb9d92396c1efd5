"""Memory does not grow with the number of samples, neither the platform's nor a participant's."""

import time

import psutil
import pytest
import yaml

from tests.e2e.conftest import TINY, Shell, kill_session

pytestmark = pytest.mark.xdist_group("ray")

PARTICIPANTS = [{"name": name, "prior": "trivial:64"} for name in ("alpha", "beta", "gamma")]
SETTINGS = (
    "targets.dim=128",
    "shared.size=256",
    "optimize.block_rows=5000",
    "optimize.batch_size=1000",
    "optimize.chunk_mb=8",
    "simulation.actors=1",
)
FEW, MANY = 100_000, 500_000
"""With either, each participant sends several chunks of 30,000 rows."""
MOST = 90
"""What the 400,000 samples between them may cost, in MB; seen: 47. Their targets are 102 more."""


def test_memory_does_not_depend_on_the_number_of_samples(shell: Shell) -> None:
    (shell.folder / "wide.yaml").write_text(yaml.safe_dump(TINY | {"participants": PARTICIPANTS}))
    few, many = (_peaks(shell, samples) for samples in (FEW, MANY))
    print(f"peak MB: {FEW:,} samples {few}, {MANY:,} samples {many}")
    assert many["growth"] < 1000
    for side in ("platform", "participant"):
        assert many[side] - few[side] < MOST


def _peaks(shell: Shell, samples: int) -> dict[str, float]:
    """Run until the dataset is published; return peaks in MB.

    The platform's growth is counted from the last look before its first optimize message.
    """
    out = shell.folder / f"run-{samples}"
    command = ("coopt", "run", "wide.yaml", "--out", str(out), *SETTINGS, f"data.limit={samples}")
    running = shell.start(*command)
    peaks = {"platform": 0.0, "participant": 0.0}
    before = 0.0
    while not (out / "dataset" / "provenance.json").exists():
        assert running.poll() is None, (shell.folder / "log").read_text()
        platform = psutil.Process(running.pid)
        used = _own(platform)
        if not (out / "state" / "shared_targets.npz").exists():
            before = used
        peaks["platform"] = max(peaks["platform"], used)
        peaks["participant"] = max(peaks["participant"], *map(_own, _actors(platform)), 0.0)
        time.sleep(0.2)
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


def _own(process: psutil.Process) -> float:
    """Return the memory that a process holds but for files and what it shares, in MB.

    Pages of libraries count for one process or for all of them by who else runs.
    """
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - memory.shared) / 1e6
