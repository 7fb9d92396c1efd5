"""What does privacy cost? Accuracy over clip and noise, and the epsilon that it buys.

    python -m experiments.privacy run digits
    python -m experiments.privacy run cifar10 --root DIR
    python -m experiments.privacy students digits
    python -m experiments.privacy students cifar10 --root DIR

``run`` fits a classifier on released targets and tests it on targets without noise, as
``experiments/solvers.py`` does (and with its cache of features). ``students`` trains real students
on released targets and probes them: regression onto targets with noise is unbiased.
"""

import json
import math
import platform
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from coopt_fl.config.schema import Config, DataConfig, RuntimeConfig, StudentConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.runtime import compute, devices
from coopt_fl.data import open_source
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset
from coopt_fl.privacy import Guard, epsilon, half, normalise
from coopt_fl.students import probe_random, probe_student, train_student
from coopt_fl.targets import Alignment, consensus_targets
from coopt_fl.targets.solvers import SOLVERS
from experiments.solvers import (
    PRIORS,
    STUDIES,
    Arrays,
    accuracies,
    mapped,
    opened,
    rounded,
    settled,
)

RESULTS = Path(__file__).parent / "results"
SHARED = {"digits": 260, "cifar10": 520}
STRENGTHS = (1.0, 0.01)
OFF, PLAIN = {"clip": None, "noise": 0.0}, {"clip": 1e6, "noise": 0.0}
CELLS = [
    OFF,
    PLAIN,
    *({"clip": clip, "noise": 0.0} for clip in (1.0, 0.5, 0.1)),
    *(
        {"clip": clip, "noise": noise}
        for clip in (1.0, 0.1, 0.01)
        for noise in (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 4.0)
    ),
]
TRAINED = [
    {"clip": None, "noise": None},
    OFF,
    *({"clip": 0.1, "noise": noise} for noise in (0.0, 0.06, 0.25, 1.0, 100.0)),
]
STUDENTS = {
    "digits": StudentConfig(
        model="convnet:64", epochs=12, batch_size=128, lr=0.003, augment="crop"
    ),
    "cifar10": StudentConfig(model="convnet:8", epochs=5, batch_size=64, lr=0.003),
}
SETTLED = ("priors", "shared", "dim", "samples", "data_fingerprints", "student")
RELEASES = {"ordinary": 1, "audited": 2, "shared": 1 + len(PRIORS)}
app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@dataclass(frozen=True)
class Study:
    """Features of all priors and labels of both splits."""

    name: str
    train_data: DataConfig
    train: Arrays
    tests: Arrays
    labels: Arrays
    prints: list[str]

    @classmethod
    def open(cls, name: str, root: str | None) -> "Study":
        """Read the features from the cache, or compute them."""
        study = STUDIES[name]
        with compute(1):
            data, prints = opened(study, root, cache_dir() / "solvers")
        source = DataConfig(source=study["source"], root=root, limit=study["limits"][0])
        return cls(name, source, *data, prints)

    def released(self, cell: dict[str, Any]) -> tuple[Arrays, Arrays, np.ndarray]:
        """Return each participant's released targets of its shard, its own of the test images
        without noise, and the rows of the train images that the former are of.

        ``clip`` is None without privacy, 1e6 where features are normalised and nothing else.
        """
        guard, train, tests = guard_of(cell), self.train, self.tests
        shared, shards, _ = settled(train, SHARED[self.name], cell["seed"])
        if guard:
            train, tests = ([unit(x) for x in xs] for xs in (train, tests))
        on_s = [leave(guard, x[shared], shared, "features", k) for k, x in enumerate(train)]
        goal = consensus_targets(on_s, STUDIES[self.name]["dim"]).astype(np.float64)
        maps = [
            Alignment(*SOLVERS["ridge"](x.astype(np.float64), goal, 0), 0.0, "ridge") for x in on_s
        ]
        targets = [
            half(leave(guard, mapped(x[rows], fitted), rows, "targets", k))
            for k, (x, rows, fitted) in enumerate(zip(train, shards, maps, strict=True))
        ]
        exact = replace(guard, noise_multiplier=0.0) if guard else None
        own = [mapped(x, fitted) for x, fitted in zip(tests, maps, strict=True)]
        clipped = [leave(exact, y, np.arange(len(y))) for y in own]
        return targets, clipped, np.concatenate(shards)

    def about(self, words: str) -> dict[str, Any]:
        """Return what is needed to repeat the study and to judge its numbers."""
        packages = ("numpy", "scipy", "scikit-learn", "torch", "timm", "dp-accounting")
        root = " --root DIR" if self.train_data.root else ""
        return {
            "command": f"python -m experiments.privacy {words}{root}",
            "date": time.strftime("%Y-%m-%d"),
            "hardware": devices(),
            "python": platform.python_version(),
            "versions": {package: version(package) for package in packages},
            "priors": PRIORS,
            "shared": SHARED[self.name],
            "dim": STUDIES[self.name]["dim"],
            "samples": len(self.train[0]),
            "data_fingerprints": self.prints,
        }


def guard_of(cell: dict[str, Any]) -> Guard | None:
    """Return what guards a cell's rows; other seeds have other noise."""
    if cell["clip"] is None:
        return None
    return Guard(cell["clip"], cell["noise"], f"{cell['seed']}".encode())


def unit(x: np.ndarray) -> np.ndarray:
    """Return normalised features (N, m)."""
    return normalise(torch.from_numpy(x)).numpy()


def leave(guard: Guard | None, rows: np.ndarray, ids: np.ndarray, *what: Any) -> np.ndarray:
    """Return rows as they leave a participant."""
    return guard.release(rows, ids, *map(str, what)) if guard else rows


def epsilons(noise: float | None, rows: int) -> dict[str, float | None]:
    """Return epsilon of a sample that is in no other role, audited once, or shared."""
    found = {name: epsilon(noise or 0.0, k, 1 / (10 * rows)) for name, k in RELEASES.items()}
    return {f"epsilon_{name}": x if math.isfinite(x) else None for name, x in found.items()}


@app.command()
def run(name: str, root: str | None = None, seeds: str = "0,1,2") -> None:
    """Measure all settings by the proxy."""
    data = Study.open(name, root)

    def measured(cell: dict[str, Any]) -> dict[str, Any]:
        ys, own, order = data.released(cell)
        fused, labels = np.concatenate(ys).astype(np.float32), data.labels
        scores = {c: accuracies(fused, labels[0][order], own, labels[1], c) for c in STRENGTHS}
        return {f"each_c{c:g}": float(np.mean(found)) for c, found in scores.items()}

    with compute(1):
        collect(f"privacy-{name}", data.about(f"run {name}"), wanted(CELLS, seeds), measured)


@app.command()
def students(name: str, root: str | None = None, seeds: str = "0,1,2") -> None:
    """Train a student per setting and seed on released targets, and probe it.

    A noise of 100 leaves nothing of the targets: what it teaches, any noise teaches.
    """
    data, config = Study.open(name, root), STUDENTS[name]

    def measured(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["noise"] is None:
            return {"student": probe_random(config, data.train_data, cell["seed"])}
        ys, _, order = data.released(cell)
        dataset = as_dataset(data.train_data, order, np.concatenate(ys))
        return {"student": trained(dataset, data.train_data, config, cell["seed"])}

    about = data.about(f"students {name}") | {"student": asdict(config)}
    with compute(1):
        collect(f"privacy-{name}-students", about, wanted(TRAINED, seeds), measured)


def wanted(settings: list[dict[str, Any]], seeds: str) -> list[dict[str, Any]]:
    """Return every setting with every seed."""
    return [cell | {"seed": int(seed)} for seed in seeds.split(",") for cell in settings]


def collect(
    name: str,
    about: dict[str, Any],
    cells: list[dict[str, Any]],
    measured: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Measure the cells that the results lack, and store each at once.

    Raises:
        ConfigError: The stored cells are of other settings.
    """
    file = RESULTS / f"{name}.json"
    stored = json.loads(file.read_text()) if file.exists() else {"run": [{}], "cells": []}
    before, now, known = stored["run"][0], json.loads(json.dumps(rounded(about))), stored["cells"]
    for part in SETTLED:
        if part in before and before[part] != now.get(part):
            raise ConfigError(
                f"{file} holds cells of another {part}, which cannot stand in one table with new "
                "ones: move that file away, or delete it"
            )
    for cell in cells:
        if any(cell.items() <= one.items() for one in known):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known.append(cell | epsilons(cell["noise"], about["samples"]) | measured(cell))
        parts = {"run": [about], "table": table(known), "cells": known}
        lines = [
            f'"{key}": [\n' + ",\n".join(json.dumps(rounded(row)) for row in rows) + "\n]"
            for key, rows in parts.items()
        ]
        file.write_text("{" + ",\n".join(lines) + "}\n")


def as_dataset(data: DataConfig, rows: np.ndarray, targets: np.ndarray) -> OptimizedDataset:
    """Return released targets as the optimized dataset that they would make."""
    source = open_source(data)
    known = draft(
        config=Config(),
        source={"fingerprint": source.fingerprint},
        contributors=[],
        reference="consensus",
        plan_changes=[],
        audit={},
    )
    known = replace(known, rows=len(rows), dim=targets.shape[1], digest=sha256(targets).hexdigest())
    nobody = np.zeros(len(rows), np.int16)
    return OptimizedDataset(Path("released"), source.ids[rows], targets, nobody, known)


def trained(
    dataset: OptimizedDataset, data: DataConfig, student: StudentConfig, seed: int
) -> float | None:
    """Return the probe's accuracy of a student trained on ``dataset``."""
    with tempfile.TemporaryDirectory() as folder:
        done = train_student(dataset, data, student, RuntimeConfig(), Path(folder), seed, devices=1)
        return probe_student(done.checkpoint, data)


def table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation (n - 1) over the seeds."""
    groups = defaultdict(list)
    for cell in cells:
        groups[cell["clip"], cell["noise"]].append(cell)
    rows = []
    for (clip, noise), found in groups.items():
        row = {"clip": clip, "noise": noise, "seeds": len(found)}
        for key in [key for key in found[0] if key.startswith("epsilon")]:
            row[key] = found[0][key]
        for key in [key for key in found[0] if key.startswith(("each", "student"))]:
            values = [one[key] for one in found]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row[key] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append(row)
    return rows


if __name__ == "__main__":
    app()
