"""The queue: order, remaining cells, and interrupted measurements."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from coopt_fl.core.errors import INTERRUPTED, ConfigError
from experiments import backlog, command
from experiments.__main__ import TABLES
from experiments.backlog import Entry, read
from experiments.scales import SCALES

ENTRIES = """
- {table: a, scale: s, where: {x: 1}, seeds: [0, 1], minutes: 10}
- {table: b, scale: s, where: {x: 2}, seeds: [0], minutes: 5}
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "list.yaml").write_text(ENTRIES)
    return tmp_path / "list.yaml"


def known(folder: Path, table: str, *cells: dict[str, float]) -> None:
    (folder / f"{table}-s.json").write_text(json.dumps({"study": {"cells": cells}}))


def run(folder: Path, *words: str) -> int:
    return command.run(
        backlog.main, ["--results", str(folder), "--backlog", str(folder / "list.yaml"), *words]
    )


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Replace ``python -m experiments`` by ``code``, which finds the arguments in argv[1:]."""
    script = folder / "program.py"
    script.write_text(f"import json, sys, time, os\nfrom pathlib import Path\n{code}")
    tasks = backlog._tasks
    monkeypatch.setattr(
        backlog,
        "_tasks",
        lambda *args: ((name, [sys.executable, str(script), *w[3:]]) for name, w in tasks(*args)),
    )


MEASURE = """
table, cell = sys.argv[1], json.loads(sys.argv[sys.argv.index("--part") + 1])
file = Path(sys.argv[sys.argv.index("--results") + 1]) / f"{table}-s.json"
cells = json.loads(file.read_text())["study"]["cells"] if file.exists() else []
cell |= {"took": 60.0, "threads": os.environ["OMP_NUM_THREADS"]}
file.write_text(json.dumps({"study": {"cells": cells + [cell]}}))
"""


def test_cells_are_measured_in_order_until_none_is_left(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = listed.parent
    program(monkeypatch, folder, MEASURE)
    known(folder, "a", {"x": 1, "seed": 1, "took": 120.0})
    assert run(folder) == 0
    said = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "a s {'x': 1, 'seed': 0}, about 2 min",
        "b s {'x': 2, 'seed': 0}, about 5 min",
    ]
    measured = json.loads((folder / "b-s.json").read_text())["study"]["cells"]
    assert measured == [{"x": 2, "seed": 0, "took": 60.0, "threads": "1"}]
    assert run(folder, "--json") == 0
    assert [row["left"] for row in json.loads(capsys.readouterr().out)] == [0, 0]


def test_rows_that_are_done_are_not_listed(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = listed.parent
    known(folder, "a", {"x": 1, "seed": 0, "took": 60.0}, {"x": 1, "seed": 1, "took": 60.0})
    assert run(folder, "--list") == 0
    shown = capsys.readouterr().out
    assert "b-s" in shown and "a-s" not in shown and "0.1 hours" in shown
    known(folder, "b", {"x": 2, "seed": 0, "took": 60.0})
    assert run(folder, "--list") == 0
    shown = capsys.readouterr().out
    assert "0.0 hours" in shown and "b-s" not in shown


WORK = """
Path(sys.argv[0]).with_suffix(".pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def ended(folder: Path) -> bool:
    """Return whether the measuring process is gone; without a pid file it had not started."""
    noted = folder / "program.pid"
    return not noted.exists() or not Path("/proc", noted.read_text()).exists()


def test_when_the_time_is_over_what_is_at_work_ends(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, listed.parent, WORK)
    assert run(listed.parent, "--budget", "2s") == 0
    assert ended(listed.parent)


def test_a_queue_that_is_stopped_ends_what_is_at_work(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if SIGINT is ignored, as in a shell's background job."""
    program(monkeypatch, listed.parent, WORK)
    sleep = time.sleep

    def interrupt(seconds: float) -> None:
        monkeypatch.setattr(time, "sleep", sleep)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(time, "sleep", interrupt)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(listed.parent) == INTERRUPTED
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended(listed.parent)


def test_a_failure_is_named_and_the_rest_is_measured(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = listed.parent
    program(monkeypatch, folder, "if sys.argv[1] == 'a': sys.exit(1)\n" + MEASURE)
    assert run(folder, "--jobs", "2") == 1
    assert "a s {'x': 1, 'seed': 0}" in capsys.readouterr().err
    assert (folder / "b-s.json").exists()


def test_a_scale_may_have_images_of_its_own(listed: Path) -> None:
    where = backlog.roots(["plain", "t=own"])
    first, *_, last = backlog._tasks(
        [*read(listed), Entry("c", "t", {}, (0,), 1.0)], where, listed.parent
    )
    assert first[1][-2:] == ["--root", "plain"] and last[1][-2:] == ["--root", "own"]
    (task,) = backlog._tasks([Entry("c", "s", {}, (0,), 1.0)], backlog.roots(["t=own"]), listed)
    assert "--root" not in task[1]


@pytest.mark.parametrize("budget", ["", "90", "2d", "m", "-1m"])
def test_a_budget_that_is_no_time(
    budget: str, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(listed.parent, "--budget", budget) == 2
    assert "give for example 90s, 150m or 8h" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[1]", "- {table: a}", "a: [", "{}", "- {seeds: 1}"])
def test_what_is_no_backlog(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(text or "")
    if text == "{}":
        assert read(tmp_path / "list.yaml") == []
        return
    with pytest.raises(ConfigError, match="is not a list of entries with table, scale"):
        read(tmp_path / "list.yaml")


@pytest.mark.parametrize("entry", read(backlog.BACKLOG), ids=lambda e: f"{e.table} {e.where}")
def test_every_entry_of_the_shipped_backlog_is_a_row(entry: Entry) -> None:
    studies = SCALES[entry.scale].values()
    rows = [row for study in studies for row in TABLES[entry.table].rows(study)]
    assert any(entry.where.items() <= row.items() for row in rows)
    assert all(set(entry.seeds) <= set(study.seeds) for study in studies)
