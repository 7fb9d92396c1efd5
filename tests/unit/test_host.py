"""The cores and memory of the host that a process may use."""

import os
import shutil
from pathlib import Path

import pytest

from coopt_fl.core import host


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv(host.SHARE, raising=False)
    assert host.cores() == 8
    with host.shared_by(3):
        assert host.cores() == 2
        with host.shared_by(5):
            assert host.cores() == 1
        assert host.cores() == 2
    assert host.cores() == 8


def test_a_process_of_its_own_keeps_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(host.SHARE, raising=False)
    with host.shared_by(1):
        assert host.SHARE not in os.environ


FILES = {"/proc/meminfo": "MemTotal: 900 kB\nMemAvailable:     50 kB\n"}


@pytest.mark.parametrize(("limit", "expected"), [(None, 51200), ("max", 51200), ("4096", 4096)])
def test_memory_is_what_the_system_and_the_container_leave(
    limit: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FILES if limit is None else FILES | {"/sys/fs/cgroup/memory.max": limit}

    def read(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert host.free_memory() == expected


def test_shared_memory_is_what_its_file_system_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(host, "free_memory", lambda: 7)
    assert host.free_shared_memory() == 7
    monkeypatch.setattr(host, "SHARED_MEMORY", tmp_path)
    assert host.free_shared_memory() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
