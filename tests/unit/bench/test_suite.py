"""``coopt bench`` apart from the measurements, which are replaced here."""

import io
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from coopt_fl.bench import suite
from coopt_fl.bench.measure import SKIPPED, Case, Reach
from coopt_fl.bench.suite import FORMAT
from coopt_fl.core.errors import ConfigError, OutputError

FIGURE = {"min": 0.8, "median": 0.91234, "max": 1.0}
ROWS = {
    "optimize": [Case("optimize/a", "the path", "the roofline", Reach(0.9)).measured(FIGURE)],
    "imports": [
        Case("imports/b", "slow", "pass", Reach(0.5, False), "s more").measured(FIGURE),
        Case("imports/c", "on a GPU", "nothing", Reach(0.9)).skipped("no-gpu"),
    ],
}


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Benchmarks that yield known rows; the list records which were run."""
    asked = list[str]()

    def measure(name: str) -> list[Any]:
        asked.append(name)
        return ROWS.get(name, [])

    known = {name: partial(measure, name) for name in suite.MODULES}
    monkeypatch.setattr(suite, "import_module", lambda module: SimpleNamespace(**known))
    return asked


def bench(*names: str, out: Path | None = None, earlier: Path | None = None) -> dict[str, Any]:
    return suite.bench(names, out, earlier, lambda row: None)


def printed(found: dict[str, Any]) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(suite.rendered(found))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_only_what_is_named_is_measured(planted: list[str]) -> None:
    told: list[str] = []
    found = suite.bench(["imports"], None, None, lambda row: told.append(suite.line(row)))
    assert planted == ["imports"]
    assert [row["name"] for row in found["rows"]] == ["imports/b", "imports/c"]
    assert found["command"] == "coopt bench imports"
    assert told == [
        "imports/b: 0.912 (0.8 to 1) s more",
        "imports/c: skipped: there is no GPU",
    ]


def test_everything_is_measured_in_the_order_of_the_table(planted: list[str]) -> None:
    bench()
    assert planted == list(suite.MODULES)


def test_every_benchmark_is_a_function_of_its_module() -> None:
    folder = Path(suite.__file__).parent
    for name, module in suite.MODULES.items():
        assert f"def {name}() -> Iterator[Row]:" in (folder / f"{module}.py").read_text()


def test_an_unknown_name_is_refused_before_anything_is_measured(planted: list[str]) -> None:
    with pytest.raises(ConfigError, match="no benchmark 'optimise'"):
        bench("imports", "optimise")
    assert planted == []


def test_results_are_kept_and_compared(tmp_path: Path) -> None:
    kept = tmp_path / "new" / "kept.json"
    first = bench("optimize", "imports", out=kept)
    assert json.loads(kept.read_text()) == first
    second = bench("imports", earlier=kept)
    assert [row["name"] for row in second["comparison"]["rows"]] == ["imports/b", "imports/c"]
    assert "within the spread" in printed(second)


def test_what_cannot_be_compared_or_written_is_refused_first(
    tmp_path: Path, planted: list[str]
) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ConfigError, match="is of format None"):
        bench(earlier=tmp_path / "file")
    with pytest.raises(OutputError):
        bench(out=tmp_path / "file" / "kept.json")
    with pytest.raises(OutputError, match="is a folder"):
        bench(out=tmp_path)
    (tmp_path / "file").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(ConfigError, match="no rows"):
        bench(earlier=tmp_path / "file")
    assert planted == []


def test_what_was_measured_before_a_failure_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> Any:
        raise KeyboardInterrupt

    module = SimpleNamespace(optimize=lambda: ROWS["optimize"], imports=failing)
    monkeypatch.setattr(suite, "import_module", lambda name: module)
    kept = tmp_path / "kept.json"
    with pytest.raises(KeyboardInterrupt):
        bench("optimize", "imports", out=kept)
    assert [row["name"] for row in json.loads(kept.read_text())["rows"]] == ["optimize/a"]


def test_the_table_says_what_was_reached() -> None:
    lines = {
        line.split("│")[1].strip(): line for line in printed(bench()).splitlines() if "│" in line
    }
    assert "0.912 (0.8 to 1)" in lines["the path"] and ">= 0.9" in lines["the path"]
    assert lines["the path"].rstrip(" │").endswith("yes")
    assert "<= 0.5" in lines["slow"] and lines["slow"].rstrip(" │").endswith("NO")
    assert f"skipped: {SKIPPED['no-gpu']}" in lines["on a GPU"]


def test_the_table_says_where_it_comes_from() -> None:
    shown = printed(bench())
    assert "torch" in shown and "cores" in shown and "median" in shown
