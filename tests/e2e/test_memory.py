"""Memory does not grow with the number of samples, neither the platform's nor a participant's."""

import time

import psutil
import yaml

from tests.e2e.conftest import TINY, Shell, actors_of, kill_session, times

PARTICIPANTS = [{"name": name, "prior": "trivial:64"} for name in ("alpha", "beta", "gamma")]
SAMPLES, DIM = 500_000, 128
SETTINGS = (
    f"data.limit={SAMPLES}",
    f"targets.dim={DIM}",
    "shared.size=256",
    "optimize.block_rows=5000",
    "optimize.batch_size=1000",
    "optimize.chunk_mb=8",
    "simulation.actors=1",
)
"""Each participant sends several chunks of 30,000 rows."""

TARGETS = SAMPLES * DIM * 2 / 1e6  # float16
"""All targets, in MB, of which the platform may hold less than all, ids and imports included; seen:
101 to 105. A participant, which holds its model and a batch from its first block on, may add a
tenth of a third of them; seen: 2.
"""


def test_memory_does_not_depend_on_the_number_of_samples(shell: Shell) -> None:
    (shell.folder / "wide.yaml").write_text(yaml.safe_dump(TINY | {"participants": PARTICIPANTS}))
    platforms, participants = _grown(shell)
    print(f"platform {platforms:.0f} MB more, participant {participants:.0f} MB more")
    assert platforms < TARGETS
    assert participants < TARGETS / 3 / 10


def _grown(shell: Shell) -> tuple[float, float]:
    """Run until the dataset is published; return by how many MB platform and participant grew.

    The platform's growth is counted from the last look before its first optimize message, and the
    participant's from the first block.
    """
    out = shell.folder / "run"
    running = shell.start("coopt", "run", "wide.yaml", "--out", str(out), *SETTINGS)
    before = peak = first = most = 0.0
    while not (out / "dataset" / "provenance.json").exists():
        assert running.poll() is None, (shell.folder / "log").read_text()
        used = _own(psutil.Process(running.pid))
        peak = max(peak, used)
        if not (out / "state" / "shared_targets.npz").exists():
            before = used
        working = max(map(_own, actors_of(running.pid)), default=0.0)
        if times(out / "state" / "blocks"):
            first = first or working
            most = max(most, working)
        time.sleep(0.2)
    kill_session(running.pid)
    running.wait()
    assert first > 0, "no participant was seen at work"
    return peak - before, most - first


def _own(process: psutil.Process) -> float:
    """Return the memory that a process holds but for files and what it shares, in MB.

    Pages of libraries count for one process or for all of them by who else runs.
    """
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - memory.shared) / 1e6
