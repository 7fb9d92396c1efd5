"""Every number on the page equals that in the files of the runs."""

import json
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.report.reading import Page
from tests.unit.report.runs import Runs

MINUS = "−"
OVERVIEW = "Every student"


def known(path: Path) -> Any:
    return json.loads(path.read_text())


def shown(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", MINUS)


@pytest.fixture
def summary(runs: Runs) -> Any:
    return known(runs.full / "summary.json")


@pytest.fixture
def provenance(runs: Runs) -> Any:
    return known(runs.full / "dataset" / "provenance.json")


def rows_of(folder: Path) -> Counter[int]:
    files = sorted((folder / "dataset" / "data").glob("*.parquet"))
    return Counter(who for file in files for who in pq.read_table(file)["participant"].to_pylist())


def answered_twice(state: Path) -> int:
    """Return the number of samples with targets from two participants, by the stored state."""
    owners = [who for (who,) in known(state / "plan.json")["blocks"]]
    asked = defaultdict(set)
    for index, (owner, _) in enumerate(owners):
        for id in np.load(state / "audit" / f"{index:07d}.npz")["ids"].tolist():
            asked[id].add(owner)
    return sum(len(names) == 2 for names in asked.values())


@pytest.mark.whole
def test_participants(page: Page, summary: Any, provenance: Any, runs: Runs) -> None:
    rows = page.table("Uniformity")
    counts = rows_of(runs.full)
    for index, (row, one) in enumerate(zip(rows, summary["participants"], strict=True)):
        assert row == [
            f"{one['name']} {one['prior']}",
            shown(one["uniformity"], 3),
            shown(one["r2_heldout"], 3),
            str(counts[index]),
            shown(one["seconds"], 1),
            shown(one["samples_per_s"], 1),
            shown(one["mb"], 2),
        ]
        assert provenance["contributors"][index]["name"] == one["name"]


def test_the_student_of_a_run_and_what_came_before_it(page: Page, summary: Any) -> None:
    alone = [one["seconds"] for one in summary["participants"]]
    spent = summary["seconds"]
    waiting = max(0, spent["optimize"] - sum(alone))
    shared = spent["represent"] + spent["align"] + spent["fuse"] + waiting
    assert page.table(OVERVIEW)[0] == [
        "full 3 participants, regression",
        f"{summary['student']['probe_accuracy']:.1%}",
        f"{summary['comparison']['random_init']:.1%}",
        shown(summary["student"]["seconds"], 1),
        shown(shared + sum(alone), 1),
        shown(shared + max(alone), 1),
        "256",  # two epochs of one whole batch
        "2",
        "convnet:2",
    ]


def test_a_baseline_over_seeds(page: Page, runs: Runs) -> None:
    seeds = [known(runs.baseline / f"seed-{seed}" / "pretrain.json") for seed in (0, 1)]
    row = page.table(OVERVIEW)[1]
    assert row[0] == "simclr simclr, 2 seeds"
    for cell, name in ((row[1], "accuracy"), (row[2], "random_accuracy")):
        values = [one[name] for one in seeds]
        assert cell == f"{statistics.mean(values):.1%} ± {statistics.stdev(values):.1%}"
    seconds = [one["curve"][-1]["seconds"] for one in seeds]
    assert row[3] == f"{statistics.mean(seconds):.1f} ± {statistics.stdev(seconds):.1f}"
    assert row[4:6] == ["–", "–"]


def test_regression_has_the_preparation_of_its_dataset(page: Page, runs: Runs) -> None:
    before = known(runs.ours / "seed-0" / "pretrain.json")["preparation"]
    full, ours = (page.table(OVERVIEW)[index] for index in (0, 2))
    assert ours[4:6] == full[4:6] == [shown(before[kind], 1) for kind in ("sum", "max")]


def test_how_many_times_faster_over_the_seeds_that_both_have(page: Page, runs: Runs) -> None:
    ours, baseline = (
        known(folder / "seed-0" / "pretrain.json") for folder in (runs.ours, runs.baseline)
    )
    final = baseline["accuracy"]
    first, reached = (
        [one["seconds"] for one in of["curve"] if one["accuracy"] >= final]
        for of in (baseline, ours)
    )
    ends = [of["curve"][-1]["seconds"] for of in (baseline, ours)]
    clocks = [ours["preparation"][which] for which in ("sum", "max")]
    equal = [shown(ends[0] / (before + ends[1]), 2) for before in clocks]
    until = [
        shown(first[0] / (before + reached[0]), 2) if reached else "never" for before in clocks
    ]
    row = ["regression", "simclr", f"{final:.1%}", *equal, *(until or ["never"] * 2), "1"]
    assert page.table("How many times faster") == [row]


def test_costs(page: Page, summary: Any) -> None:
    rows = page.table("Seconds by phase")
    assert [row[:2] for row in rows] == [
        [phase, shown(seconds, 1)] for phase, seconds in summary["seconds"].items()
    ]
    assert f"{shown(sum(summary['seconds'].values()), 1)} in all" in page.text


def test_coverage_and_audit(page: Page, provenance: Any, runs: Runs) -> None:
    assert "203 of 203 samples have a target. None was left out." in page.text
    for index, one in enumerate(provenance["contributors"]):
        rows = rows_of(runs.full)[index]
        assert f"{one['name']} {rows} {100 * rows / 203:.0f}%" in page.text
    audited = answered_twice(runs.full / "state")
    assert audited > 0
    assert f"{audited} samples got a target from two participants" in page.text
    assert page.table("Verdicts") == [
        [one["name"], "accepted", "nothing against it"] for one in provenance["contributors"]
    ]


def test_what_ran(page: Page, provenance: Any) -> None:
    for words in (provenance["digest"], provenance["versions"]["torch"], "203 of 16 numbers"):
        assert words in page.text
    assert "Aligned to: consensus" in page.text
    assert "block_rows: 20" in page.text, "the configuration"


def test_alignment_brings_participants_together(page: Page) -> None:
    rows = page.table("nearest target is of the same sample")
    assert len(rows) == 3
    for row in rows:
        before, after = (float(cell.removesuffix("%")) for cell in row[3:5])
        assert after > 3 * max(before, 100 / 64), row


def test_figures_and_neighbours_are_there(page: Page, runs: Runs) -> None:
    alts = [one["aria-label"] for one in page.all("svg")]
    assert sum(alt.startswith("t-SNE of 192 targets, before alignment") for alt in alts) == 2
    assert sum(alt.startswith("t-SNE of 192 targets, after") for alt in alts) == 2
    assert [alt for alt in alts if alt.startswith("Probe accuracy at the end: full")]
    pictures = page.all("img")
    assert len(pictures) == 2 * 6 * (1 + 6), "of the two datasets"
    assert all(one["alt"].split()[0] in ("Query:", "Neighbour:") for one in pictures)
