"""The commands beside ``coopt``: errors are one sentence, and every argument has a help text."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import scale as benchmark
from experiments import __main__ as tables
from experiments import backlog, document, figures
from experiments.command import run
from experiments.scales import SCALES
from tests.unit.experiments.test_readme import results

Main = Callable[..., None]

WRONG: dict[str, tuple[Main, str, str]] = {
    "table": (tables.main, "recipes", "there is no table 'recipes' (nearest: recipe"),
    "second table": (tables.main, "tsne recip", "there is no table 'recip' (nearest: recipe"),
    "scale": (tables.main, "--scale smok", "there is no --scale 'smok' (nearest: smoke)"),
    "study": (tables.main, "tsne --scale smoke --only nix", "--only must be one of synthetic"),
    "root": (tables.main, "tsne --scale whole", "--scale whole needs --root DIR"),
    "option": (tables.main, "tsne --scal smoke", "Did you mean '--scale'?"),
    "gpus": (tables.main, "tsne --gpus 99", "--gpus 99 is more than"),
    "number": (tables.main, "tsne --gpus many", "'many' is not a valid"),
    "part": (tables.main, "tsne --scale smoke --part {seed:0}", "--part is a JSON object, such as"),
    "no such part": (tables.main, 'tsne --scale smoke --part {"seed":9}', "no cell of tsne has"),
    "nothing to draw": (tables.main, "tsne --scale moment --draw", "no results to draw"),
    "nothing to draw at all": (tables.main, "--scale moment --draw", "no results to draw"),
    "part of all": (tables.main, "--part {}", "--part needs exactly one table"),
    "word": (document.main, "tsne", "unexpected extra argument"),
    "benchmark": (benchmark.main, "simulate", "(nearest: simulation)"),
    "scale of the benchmark": (benchmark.main, "--scale papers", "(nearest: paper)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main, words, said = WRONG[name]
    assert run(main, words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("error: ") and said in err


@pytest.mark.parametrize("main", [tables.main, document.main, benchmark.main, backlog.main])
def test_every_argument_is_explained(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(main)
    arguments: list[Any] = [*typer.main.get_command(app).params]
    assert len(arguments) > 2
    assert all((one.help or "").endswith((".", ").")) for one in arguments)
    assert run(main, ["--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_the_program_ends_with_the_sentence_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments", "nonsense"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("experiments", run_name="__main__")
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: there is no table 'nonsense'")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(figures.__file__)
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: figures need matplotlib: pip install ")


def test_the_documents_are_made_from_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "below" / "results.md"
    text.parent.mkdir()
    text.write_text("<!-- tsne-cpu cifar10 -->\n<!-- end -->")
    options = ["--results", str(tmp_path), "--figures", str(tmp_path), "--documents", str(tmp_path)]
    assert run(document.main, options) == 2
    missing = capsys.readouterr().err
    assert "run `python -m experiments tsne --scale cpu`" in missing
    results(tmp_path)
    assert run(document.main, options) == 0
    assert (tmp_path / "readme-tsne.svg").is_file() and "25.0" in text.read_text()


def test_scales_mean_the_same_everywhere() -> None:
    assert set(benchmark.SIZES) <= set(SCALES)
    sizes = [size.gigabytes for size in benchmark.SIZES.values()]
    assert sizes == sorted(sizes) and sizes[-1] == pytest.approx(1_281_167 * 512 * 2 / 1e9)
