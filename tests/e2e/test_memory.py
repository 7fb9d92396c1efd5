"""Targets are not kept in memory, neither by the platform nor by a participant."""

import time

import psutil
import yaml

from tests.e2e.conftest import TINY, Shell, actors_of, kill_session, times

PARTICIPANTS = [{"name": name, "prior": "trivial:96"} for name in ("alpha", "beta", "gamma")]
SAMPLES, DIM = 500_000, 256
SETTINGS = (
    f"data.limit={SAMPLES}",
    f"targets.dim={DIM}",
    "shared.size=512",
    "optimize.block_rows=5000",
    "optimize.batch_size=1000",
    "optimize.chunk_mb=8",
    "simulation.actors=1",
)
"""Each participant sends many chunks of 15,000 rows."""

TARGETS = SAMPLES * DIM * 2 / 1e6
"""MB of all targets, in float16. The platform may grow by less than this after its first optimize
message, with its ids and late imports (seen: 141 to 150). A participant may grow by half of its own
third after the first stored block (seen: up to 3).
"""


def test_targets_are_not_kept_in_memory(shell: Shell) -> None:
    (shell.folder / "wide.yaml").write_text(yaml.safe_dump(TINY | {"participants": PARTICIPANTS}))
    platform_grew, participant_grew = _growth(shell)
    print(f"platform {platform_grew:.0f} MB more, participant {participant_grew:.0f} MB more")
    assert platform_grew < TARGETS
    assert participant_grew < TARGETS / 3 / 2


def _growth(shell: Shell) -> tuple[float, float]:
    """Run until the dataset is published; return by how many MB platform and participant grew.

    The platform's growth is counted from the last look before its first optimize message, and the
    participant's from the first block.
    """
    out = shell.folder / "run"
    running = shell.start("coopt", "run", "wide.yaml", "--out", str(out), *SETTINGS)
    platform_before = platform_peak = actor_before = actor_peak = 0.0
    while not (out / "dataset" / "provenance.json").exists():
        assert running.poll() is None, (shell.folder / "log").read_text()
        platform = _own(psutil.Process(running.pid))
        platform_peak = max(platform_peak, platform)
        if not (out / "state" / "shared_targets.npz").exists():
            platform_before = platform
        actor = max(map(_own, actors_of(running.pid)), default=0.0)
        if times(out / "state" / "blocks"):
            actor_before = actor_before or actor
            actor_peak = max(actor_peak, actor)
        time.sleep(0.2)
    kill_session(running.pid)
    running.wait()
    assert actor_before > 0, "no participant was seen at work"
    return platform_peak - platform_before, actor_peak - actor_before


def _own(process: psutil.Process) -> float:
    """Return the memory that a process holds but for files and what it shares, in MB.

    Pages of libraries count for one process or for all of them by who else runs.
    """
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - memory.shared) / 1e6
