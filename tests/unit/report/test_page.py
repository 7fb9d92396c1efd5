"""The page: self-contained, safe against hostile names, and complete for partial runs."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from coopt_fl import api
from coopt_fl.cli import main as cli
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.progress import Progress
from coopt_fl.report.collect import collect
from coopt_fl.report.curves import _lines
from coopt_fl.report.page import write_report
from coopt_fl.report.tables import entries
from tests.unit.report.reading import Page, read
from tests.unit.report.runs import Runs

LOADS = {"src", "href", "xlink:href", "data", "action", "poster", "srcset"}
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}$x^2$</text></svg>"


def report(*paths: Path) -> Page:
    out = paths[0].parent / "page.html"
    write_report(list(paths), out, Progress())
    return read(out.read_text())


def copied(runs: Runs, folder: Path, *parts: str) -> Path:
    """Return a copy of these parts of the full run."""
    for part in parts:
        source, to = runs.full / part, folder / "copy" / part
        if source.is_dir():
            shutil.copytree(source, to)
        else:
            shutil.copy(source, to)
    return folder / "copy"


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_page_loads_nothing_and_runs_nothing(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in LOADS:
                assert value.startswith(("#", "data:image/")), (tag, value)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    policy = page.all("meta")[2]["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_ids_are_unique_and_every_link_and_label_leads_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]
    used += [a["href"].removeprefix("#") for _, a in page.tags if "href" in a]
    assert set(used) <= set(ids)


def test_headings_go_down_step_by_step_and_pictures_have_words(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for attributes in page.all("img"):
        assert attributes["alt"]
    for attributes in page.all("svg"):
        assert attributes["role"] == "img" and attributes["aria-label"]


def test_several_runs_have_a_section_each(page: Page) -> None:
    assert "4 runs, side by side" in page.text
    names = ["full", "simclr", "regression", "plain"]
    assert [row[0].split()[0] for row in page.table("Every student")] == names
    sections = [a["id"] for a in page.all("section")]
    assert sections[:2] == ["settings", "overview"] and sections[3:] == [
        f"run-{k}" for k in (1, 2, 3, 4)
    ]


SETTINGS = "Every setting that is not the same"


def test_side_by_side_it_begins_with_the_settings_that_differ(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset", "summary.json", "student")

    def change(value: dict[str, Any]) -> None:
        config = value["config"]
        config["seed"], config["data"]["root"] = 7, "<a place>"
        config["participants"].append({"name": "delta", "prior": "trivial:9", "weight": 1.0})
        config["runtime"]["deterministic"] = True

    edit(folder / "summary.json", change)
    page = report(runs.full, folder)
    assert page.all("section")[0]["id"] == "settings"
    assert page.table(SETTINGS) == [
        ["seed", "0", "7"],
        ["data.root", "null", "<a place>"],
        ["runtime.deterministic", "false", "true"],
        ["participants.3.name", "–", "delta"],
        ["participants.3.prior", "–", "trivial:9"],
        ["participants.3.weight", "–", "1.0"],
    ]
    first = page.text.index("Settings that differ")
    assert page.text.index("7", first) < page.text.index("Every student, with its probe")


def test_settings_of_seeds_and_objectives(page: Page, runs: Runs) -> None:
    rows = {key: values for key, *values in page.table(SETTINGS)}
    assert rows["student.objective"] == ["regression", "simclr", "regression", "regression"]
    assert rows["seed"] == ["0", "0, 1", "0", "0"]
    assert rows["data.source"] == ["synthetic"] * 3 + ["imagefolder"]
    for row, place in enumerate((runs.full, runs.plain)):
        config = json.loads((place / "summary.json").read_text())["config"]
        assert rows["optimize.block_rows"][3 * row] == str(config["optimize"]["block_rows"])
    assert "probe.limit" in rows, "60 where it was set"
    assert "targets.projection" not in rows, "equal in all"


def test_equal_settings_are_said_to_be(runs: Runs, tmp_path: Path) -> None:
    page = report(runs.full, copied(runs, tmp_path, "dataset", "summary.json"))
    assert "Settings that differ All settings are the same." in page.text
    assert "Settings that differ" not in report(runs.full).text


def test_what_is_between_backticks_is_code(page: Page, runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset")
    said = "run `coopt <b>` again & `more`"
    change = {"origin": "alpha", "blocks": [1], "owners": ["beta"], "reason": said, "evidence": {}}
    edit(folder / "dataset/provenance.json", lambda value: value.update(plan_changes=[change]))
    lost = report(folder)
    assert lost.table("changed hands")[0][-1] == "run coopt <b> again & more"
    for one in (page, lost, report(runs.full), report(runs.plain)):
        assert "`" not in one.text
    text = (tmp_path / "page.html").read_text()
    assert "run <code>coopt &lt;b&gt;</code> again &amp; <code>more</code>" in text


def test_every_table_scrolls_in_a_place_of_its_own(html: str) -> None:
    """No column is then cut off on a small screen; tests/e2e checks this in a browser."""
    tables = re.findall(r"(<div class=\"scroll[^>]*>\s*)?<table>", html)
    assert len(tables) > 10 and all(tables)


def test_runs_of_other_images_do_not_compare(page: Page, runs: Runs) -> None:
    assert "These runs use different images" in page.text
    assert "different images" not in report(runs.full, runs.baseline).text


def test_seconds_of_another_machine_give_no_speed_up(runs: Runs, tmp_path: Path) -> None:
    assert "No speed-up: it takes the outputs of two" in report(runs.full).text
    elsewhere = Path(shutil.copytree(runs.baseline, tmp_path / "elsewhere"))
    edit(elsewhere / "seed-0" / "pretrain.json", lambda value: value["hardware"].update(GPUs="H9"))
    (row,) = report(runs.ours, elsewhere).table("How many times faster")
    assert "another hardware" in row[-1]
    (elsewhere / "seed-0").rename(elsewhere / "seed-7")
    edit(elsewhere / "seed-7" / "pretrain.json", lambda value: value.update(seed=7))
    edit(elsewhere / "seed-1" / "pretrain.json", lambda value: value.update(seed=8))
    (row,) = report(runs.ours, elsewhere).table("How many times faster")
    assert row == ["regression", "elsewhere", "they have no seed in common."]


def test_a_preparation_that_is_too_high_is_said_to_be(runs: Runs, tmp_path: Path) -> None:
    shared = report(runs.full, runs.ours, runs.baseline).text
    assert "The preparation times of full, regression, and all times" in shared
    assert "participants shared a device; simulation.actors=1 measures each alone" in shared
    alone = copied(runs, tmp_path, "dataset", "summary.json", "student")
    edit(alone / "summary.json", lambda value: value["config"]["simulation"].update(actors=1))
    assert "shared a device" not in report(alone, runs.plain, runs.baseline).text


def test_accuracies_are_of_the_training_that_is_shown(runs: Runs, tmp_path: Path) -> None:
    """A later, unfinished training with other settings has no accuracy yet."""
    folder = copied(runs, tmp_path, "dataset", "summary.json", "student")
    assert report(folder).table("Every student")[0][1] != "–"
    later = {"objective": "rela", "epochs": 5000}
    edit(folder / "summary.json", lambda value: value["config"]["student"].update(later))
    assert report(folder).table("Every student")[0][1:3] == ["–", "–"]


def test_the_mean_over_seeds_is_of_the_epochs_that_all_were_probed_at(
    runs: Runs, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(runs.baseline, tmp_path / "some"))
    edit(folder / "seed-1" / "pretrain.json", lambda value: value["curve"][0].update(accuracy=None))
    entry = entries(collect([folder]))[0]
    *seeds, mean = _lines(entry, entry.seeds, "samples")
    assert [len(one.places) for one in seeds] == [3, 2]
    assert [at for at, _ in mean.places] == [0.0, 256.0]
    assert mean.places[1][1] == pytest.approx(sum(one.places[-1][1] for one in seeds) / 2)


def test_seeds_are_in_the_order_of_their_numbers(runs: Runs, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs.baseline, tmp_path / "many"))
    (folder / "seed-0").rename(folder / "seed-10")
    edit(folder / "seed-10" / "pretrain.json", lambda value: value.update(seed=10))
    assert [one.seed for one in collect([folder])[0].students[0].students] == [1, 10]


def test_the_same_run_gives_the_same_page(runs: Runs, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report([runs.full], tmp_path / name, Progress())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_hostile_names_are_text(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset", "summary.json", "student")

    def poison(value: dict[str, Any]) -> None:
        for one in value["contributors"]:
            one["name"] = one["prior"] = HOSTILE + one["name"]
        value["reference"] = value["dtype"] = value["normalisation"] = HOSTILE
        value["versions"][HOSTILE] = HOSTILE
        value["audit"]["undecided"] = [HOSTILE]
        change = {"origin": HOSTILE, "blocks": [1], "owners": [HOSTILE], "reason": HOSTILE}
        value["plan_changes"] = [change | {"evidence": {}}]

    edit(folder / "dataset" / "provenance.json", poison)
    hostile = folder.rename(tmp_path / "<b>$x^2$ & #fd00fd")
    page = report(hostile, runs.ours)
    assert [a["src"][:11] for a in page.all("img")] == ["data:image/"] * len(page.all("img"))
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert page.text.count(HOSTILE) >= 12, "each as it is, {{ 7*7 }} included"
    assert len(page.all("svg")) >= 4, "</svg> in a name closes none"
    assert hostile.name in page.text


def test_without_labels(runs: Runs) -> None:
    page = report(runs.plain)
    assert "no student was probed: there are no labels" in page.text
    assert page.table("Every student")[0][1:3] == ["–", "–"]
    assert "No classes: imagefolder has no labels." in page.text
    assert len(page.all("img")) == 6 * 7
    assert "class" not in " ".join(a["alt"] for a in page.all("img"))
    assert "one prior alone made the targets, so nothing was aligned" in page.text
    assert "One prior alone made all targets: there was nobody to compare it with" in page.text


def test_without_a_student(runs: Runs, tmp_path: Path) -> None:
    page = report(copied(runs, tmp_path, "dataset", "state"))
    assert page.table("Every student") == [
        ["copy 3 participants", "an optimized dataset, no student"]
    ]
    assert page.text.count("this run is not at its end") == 2, "for the student and the costs"
    assert len(page.table("nearest target is of the same sample")) == 3


@pytest.mark.whole
def test_a_dataset_alone_as_others_receive_it(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset")
    for path in (folder, folder / "dataset"):
        page = report(path)
        assert "the platform's state/, which holds the features, is not in this" in page.text
        assert [row[4:] for row in page.table("Uniformity")] == [["–"] * 3] * 3
        alts = [one["aria-label"] for one in page.all("svg")]
        assert len([alt for alt in alts if "the optimized dataset" in alt]) == 2


def test_images_that_are_not_here(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset")
    manifest = folder / "dataset" / "provenance.json"
    edit(manifest, lambda value: value["source"].update(fingerprint="0" * 64))
    page = report(folder)
    assert "the images of synthetic on this host are not those of this dataset" in page.text
    assert page.all("img") == []
    edit(manifest, lambda value: value["config"]["data"].update(source="cifar10"))
    assert "not on this host, and a report loads none" in report(folder).text


def test_lost_and_rejected_participants(runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path, "dataset")
    witness = {"far": 9, "samples": 10, "usual": 0.05, "chance": 0.5}
    evidence = {"odds": 7.25, "limit": 4.6, "witnesses": {"gamma": witness}}

    def spoil(value: dict[str, Any]) -> None:
        moved = {"owners": ["gamma"], "blocks": [1, 2]}
        value["audit"]["rejected"] = ["alpha"]
        late = {"reason": "it is late", "evidence": {}, "rejected": False}
        value["plan_changes"] = [
            late | {"origin": "gamma", "owners": ["beta"], "blocks": [0]},  # came back
            {"origin": "alpha", "reason": "it lies", "evidence": evidence, "rejected": True}
            | moved,
            late | {"origin": "beta"} | moved,
        ]
        value["skipped"] = list(range(9))

    edit(folder / "dataset" / "provenance.json", spoil)
    page = report(folder)
    alpha, beta, gamma = page.table("Verdicts")
    assert alpha[:2] == ["alpha", "rejected"]
    assert alpha[2].startswith("it lies Log odds against it 7.2; 4.6 are enough.")
    assert "gamma: 9 of 10 samples are farther apart than usual; 5% are" in alpha[2]
    assert beta == ["beta", "lost", "it is late"]
    assert gamma == ["gamma", "accepted", "nothing against it"]
    assert page.table("changed hands")[1] == ["alpha", "2", "gamma", "it lies"]
    assert "9 could not be read and were left out: 0, 1, 2, 3, 4, 5, 6, 7, …." in page.text


def unfinished(runs: Runs, folder: Path) -> list[Path]:
    return [copied(runs, folder, "state")]


def damaged(runs: Runs, folder: Path) -> list[Path]:
    path = copied(runs, folder, "dataset", "summary.json")
    (path / "summary.json").write_text("{")
    return [path]


def strange(runs: Runs, folder: Path) -> list[Path]:
    path = copied(runs, folder, "dataset", "summary.json", "student")
    edit(path / "summary.json", lambda value: value.pop("participants"))
    return [path]


def not_a_student(runs: Runs, folder: Path) -> list[Path]:
    path = copied(runs, folder, "dataset", "summary.json", "student")
    (path / "student" / "checkpoint.pt").write_bytes(b"")
    return [path]


def broken(runs: Runs, folder: Path) -> list[Path]:
    path = copied(runs, folder, "dataset")
    (path / "dataset" / "provenance.json").write_text("{}")
    return [path]


def out_of_date(runs: Runs, folder: Path) -> list[Path]:
    path = Path(shutil.copytree(runs.baseline, folder / "simclr"))
    change = {"epochs": 3}
    edit(path / "seed-0" / "pretrain.json", lambda value: value["config"]["student"].update(change))
    return [path]


WRONG: dict[str, tuple[Callable[[Runs, Path], list[Path]], int, str]] = {
    "missing": (lambda runs, folder: [folder / "no"], 2, "no directory"),
    "empty": (lambda runs, folder: [folder], 2, "holds neither dataset/provenance.json nor"),
    "twice": (lambda runs, folder: [runs.full, runs.full / "x" / ".."], 2, "is given twice"),
    "unfinished": (unfinished, 2, "finish it with the same command"),
    "damaged": (damaged, 2, "summary.json is damaged"),
    "strange": (strange, 2, "not what this version writes"),
    "not a student": (not_a_student, 2, "not a checkpoint of a student"),
    "out of date": (out_of_date, 2, "were trained with another student.epochs"),
    "broken": (broken, 1, "is not a provenance"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_reported_is_one_sentence_and_an_exit_code(
    name: str,
    runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code, words = WRONG[name]
    out = tmp_path / "report.html"
    paths = [str(path) for path in make(runs, tmp_path)]
    monkeypatch.setattr("sys.argv", ["coopt", "report", *paths, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert words in line
    assert not out.exists()


def test_the_command(
    runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "new" / "report.html"
    monkeypatch.setattr(
        "sys.argv", ["coopt", "report", str(runs.ours), "--out", str(out), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"report": str(out), "bytes": out.stat().st_size, "runs": ["regression"]}


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setitem(sys.modules, "coopt_fl.report.page", None)
    with pytest.raises(ModuleNotFoundError):
        api.write_report([], out=out, progress=None)
    monkeypatch.setattr(api, "REPORT_NEEDS", ("coopt_fl",))
    with pytest.raises(ConfigError, match=r"pip install .*jinja2>=.*matplotlib>="):
        api.write_report([], out=out, progress=None)
