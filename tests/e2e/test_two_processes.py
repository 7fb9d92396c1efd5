"""Several devices: as many processes, each started from the same command line."""

import csv
import json
import math
import os
import subprocess
import sys

import pytest

from coopt_fl.api import centralized, train
from coopt_fl.core import runtime
from coopt_fl.students.checkpoint import load_student

TINY = (
    "data.source=synthetic data.limit=160 targets.dim=8 targets.projection=random shared.size=32 "
    "student.model=convnet:4 student.epochs=1 student.batch_size=32"
)

CURVE = 1e-3
"""Relative difference of two processes' mean loss of an epoch from that of one."""


def coopt(*arguments):
    """Return the JSON that the command ends with; one thread, for the host may have few cores."""
    done = subprocess.run(
        [sys.executable, "-m", "coopt_fl", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and len(lines) == 1, done.stdout
    return json.loads(lines[0])


def test_two_processes_train_the_student_that_one_trains(tmp_path):
    """Each takes half of every batch. Without batch norm, of a half, only rounding differs."""
    centralized("digits", TINY.split(), prior="trivial:16", out=tmp_path, progress=None)
    exact = ["student.model=timm:test_vit", "student.head=linear", "student.precision=float32"]
    settings, out = [*exact, "student.epochs=3", "tracker=csv"], tmp_path / "two"
    trained = coopt("train", tmp_path, *settings, "--devices", "2", "--out", out)
    with runtime.compute(1):
        alone = train(tmp_path, settings, out=tmp_path / "one", devices=1, progress=None)
    assert trained["loss_per_epoch"] == pytest.approx(alone["loss_per_epoch"], rel=CURVE)
    assert len(set(alone["loss_per_epoch"])) == 3
    files = [".lock", "checkpoint.pt", "log.txt", "tracking"]
    assert sorted(path.name for path in out.iterdir()) == files
    with (out / "tracking" / "csv" / "metrics.csv").open() as file:  # the first process alone
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert rows == [*enumerate(trained["loss_per_epoch"], 1)]
    student = load_student(out / "checkpoint.pt")
    assert student.meta["epochs"] == 3 and student.meta["curve"][-1]["loss"] < 1
    assert train(tmp_path, settings, out=out, devices=1, progress=None) == trained, "it is done"


@pytest.mark.parametrize(("objective", "seeds"), [("moco", 2), ("swav", 1)])
def test_two_processes_train_without_targets(tmp_path, objective, seeds):
    """Whether the teacher's batch is shuffled among them, or some weights wait for their turn.

    One seed after another, each with a second process of its own.
    """
    tiny = "data.source=synthetic data.limit=160 shared.size=32 student.model=convnet:2"
    arguments = ("pretrain", "digits", *tiny.split(), "student.epochs=2", "student.batch_size=32")
    found = coopt(
        *arguments, "--objective", objective, "--seeds", seeds, "--devices", "2", "--out", tmp_path
    )
    assert [one["seed"] for one in found["seeds"]] == list(range(seeds))
    assert all(math.isfinite(point["loss"]) for one in found["seeds"] for point in one["curve"])
    files = ["log.txt", *(f"seed-{seed}" for seed in range(seeds))]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
