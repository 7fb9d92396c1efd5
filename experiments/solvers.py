"""Which solver, projection and reference? Accuracy of a probe on fused targets, over |S|.

    python experiments/solvers.py run digits
    python experiments/solvers.py run cifar10 --root DIR
    python experiments/solvers.py figure

Features are computed once and kept in ``--cache``; the rest is linear algebra. No student is
trained: a linear classifier, fitted on the fused targets of the train images, is tested on targets
of the test images, which is an upper bound of what a student can reach.
"""

import hashlib
import itertools
import json
import platform
import time
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.runtime import compute, devices
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import open_source, shared_set
from coopt_fl.data.labels import open_labels
from coopt_fl.priors import load_prior
from coopt_fl.targets import Alignment, consensus_targets, fit_projection, represent, uniformity
from coopt_fl.targets.alignment import r2_score
from coopt_fl.targets.solvers import SOLVERS

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "solvers.png"
PRIORS = [f"timm:tf_efficientnet_lite{i}@bundled?size=96" for i in range(3)]
STRENGTHS = (1.0, 0.01)  # C of the probe: the project's own, and one that overfits less
STUDIES: dict[str, dict[str, Any]] = {
    "digits": {"source": "digits", "limits": (None, None), "dim": 128},
    "cifar10": {"source": "parquet", "limits": (6000, 2000), "dim": 256},
}
SIZES = {
    "digits": (10, 30, 60, 120, 256, 500, 1000),
    "cifar10": (10, 30, 60, 120, 250, 512, 1000, 2000, 5000),
}
RANDOM_WITH = ("ridge", "procrustes", "sgd")  # solvers also tried on a random projection
NORMALISED = ("ridge", "procrustes")  # solvers also tried with normalised targets
NORMALISATIONS = ("plain", "matched", "unit")
KEYS = ("reference", "projection", "solver", "size")
STYLES = {
    ("consensus", "pca", "ridge"): {"color": "C0", "marker": "s", "lw": 2.2},
    ("consensus", "pca", "procrustes"): {"color": "C1", "marker": "s", "lw": 2.2},
    ("best", "pca", "ridge"): {"color": "C0", "marker": "o"},
    ("best", "pca", "procrustes"): {"color": "C1", "marker": "o"},
    ("best", "random", "ridge"): {"color": "C0", "marker": "x", "ls": ":"},
    ("best", "pca", "sgd"): {"color": "C2", "marker": "o"},
    ("best", "pca", "lstsq"): {"color": "C3", "marker": "o"},
    ("best", "pca", "none"): {"color": "0.4", "marker": "o", "ls": "--"},
}
Arrays = list[np.ndarray]
app = typer.Typer(add_completion=False)


def features_of(spec: str, data: DataConfig, split: str, cache: Path) -> np.ndarray:
    """Return the prior's features (N, m) of a split, from the cache where they are there."""
    prior, source = load_prior(spec), open_source(data, split)
    key = f"{spec} {prior.sha256} {source.fingerprint} {split}"
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    if not file.exists():
        settings = {"batch_size": 32, "precision": "float32", "on_error": "raise"}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=represent(prior, source, source.ids, **settings).values)
    return np.load(file)["features"]


def settled(train: Arrays, size: int, seed: int) -> tuple[np.ndarray, Arrays, int]:
    """Return the rows of S, the shards, and who is elected by uniformity alone.

    Not :func:`alignability`, which at |S| = 10 cannot tell; all three are known to be sound.
    """
    rows = len(train[0])
    order = np.random.default_rng(derive_seed(seed, "shards")).permutation(rows)
    shared = shared_set(np.arange(rows), size, seed)
    best = int(np.argmin([uniformity(x[shared]) for x in train]))
    return shared, np.array_split(order, len(train)), best


def aligned(
    train: Arrays, cell: dict[str, Any], shared: np.ndarray, shards: Arrays, best: int, dim: int
) -> list[Alignment]:
    """Return every participant's map to targets."""
    on_s = [x[shared] for x in train]
    maps: dict[int, Alignment] = {}
    if cell["reference"] == "consensus":
        targets = consensus_targets(on_s, dim)
    else:
        rows = shards[best][: 2 * dim]  # as many as the platform asks for
        maps[best] = fit_projection(train[best][rows], dim, cell["projection"], cell["seed"])
        targets = mapped(on_s[best], maps[best])
    for k in set(range(len(train))) - set(maps):
        solve, seed = SOLVERS[cell["solver"]], derive_seed(cell["seed"], "align", k)
        weight, bias = solve(on_s[k].astype(np.float64), targets.astype(np.float64), seed)
        maps[k] = Alignment(weight, bias, 0.0, cell["solver"])  # R2 is measured on test images
    return [maps[k] for k in range(len(train))]


def mapped(x: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Return targets (N, n) of features (N, m)."""
    return alignment.apply(torch.from_numpy(x)).numpy()


def normalised(targets: Arrays, shards: Arrays, tests: Arrays, how: str) -> tuple[Arrays, Arrays]:
    """Return the targets as they are, with each participant's moments matched, or of unit length.

    ``matched``: over its own shard every participant's targets get mean 0 and unit RMS.
    """
    if how == "matched":
        means = [y[rows].mean(axis=0) for y, rows in zip(targets, shards, strict=True)]
        scales = [
            np.sqrt(np.mean((y[rows] - mean) ** 2))
            for y, rows, mean in zip(targets, shards, means, strict=True)
        ]
        moments = list(zip(means, scales, strict=True))
        targets, tests = (
            [(y - mean) / scale for y, (mean, scale) in zip(ys, moments, strict=True)]
            for ys in (targets, tests)
        )
    if how == "unit":
        targets, tests = (
            [y / np.linalg.norm(y, axis=1, keepdims=True).clip(1e-12) for y in ys]
            for ys in (targets, tests)
        )
    return targets, tests


def judge(
    data: Any, setting: Any, cell: dict[str, Any], dim: int, normalise: bool
) -> list[dict[str, Any]]:
    """Return the R2 on test images and, per normalisation, accuracies by what the test target is.

    ``reference``: the reference's own target (of a consensus: the mean of the participants');
    ``mean``: the mean of the participants' aligned targets; ``each``: any one participant's.
    """
    (train, test, labels), (shared, shards, best) = data, setting
    maps = aligned(train, cell, shared, shards, best, dim)
    ours, theirs = ([mapped(x, a) for x, a in zip(xs, maps, strict=True)] for xs in (train, test))
    others = [k for k in range(len(maps)) if k != best or cell["reference"] == "consensus"]
    truth = theirs[best] if cell["reference"] == "best" else np.mean(theirs, axis=0)
    r2 = float(np.mean([r2_score(truth, theirs[k]) for k in others]))
    found = []
    for how in NORMALISATIONS if normalise and cell["solver"] in NORMALISED else ("plain",):
        targets, tests = normalised(ours, shards, theirs, how)
        fused = np.concatenate([y[rows] for y, rows in zip(targets, shards, strict=True)])
        mean = np.mean(tests, axis=0)
        own = tests[best] if cell["reference"] == "best" else mean
        result = cell | {"normalisation": how, "r2_test": r2}
        for c in STRENGTHS:
            y = labels[0][np.concatenate(shards)]
            scores = accuracies(fused, y, [own, mean, *tests], labels[1], c)
            result |= {f"reference_c{c:g}": scores[0], f"mean_c{c:g}": scores[1]}
            result[f"each_c{c:g}"] = float(np.mean(scores[2:]))
        found.append(result)
    return found


def accuracies(
    x: np.ndarray, y: np.ndarray, tests: Arrays, labels: np.ndarray, c: float
) -> list[float]:
    """Return the probe's accuracy on each of several targets of the test images.

    scikit-learn's, for it is 8 times faster here than ``fit_probe`` and finds the same optimum.
    """
    scaler = StandardScaler().fit(x)
    probe = LogisticRegression(C=c, max_iter=1000).fit(scaler.transform(x), y)
    return [float(probe.score(scaler.transform(one), labels)) for one in tests]


def grid(size: int, dim: int, only: str | None) -> list[dict[str, Any]]:
    """Return what is tried with a shared set of ``size``, or ``only`` some solvers with PCA."""
    kinds = [("best", "pca", solver) for solver in SOLVERS]
    kinds += [("best", "random", solver) for solver in RANDOM_WITH]
    if size >= 2 * dim:
        kinds += [("consensus", "pca", solver) for solver in SOLVERS if solver != "none"]
    if only:
        kinds = [kind for kind in kinds if kind[2] in only.split(",") and kind[1] == "pca"]
    return [dict(zip(KEYS, (*kind, size), strict=True)) for kind in kinds]


def table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation (n - 1) over the seeds of every measure."""
    groups = defaultdict(list)
    for cell in cells:
        groups[tuple(cell[key] for key in (*KEYS, "normalisation"))].append(cell)
    rows = []
    for key, found in groups.items():
        row = dict(zip((*KEYS, "normalisation"), key, strict=True)) | {"seeds": len(found)}
        for measure in sorted(found[0].keys() - row.keys() - {"seed"}):
            values = [one[measure] for one in found]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row[measure] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append(row)
    return rows


def provenance(name: str, asked: Any, prints: list[str], seconds: float) -> dict[str, Any]:
    """Return what is needed to repeat the study and to judge its numbers."""
    packages = ("numpy", "scipy", "scikit-learn", "torch", "timm")
    root = "" if name == "digits" else " --root DIR"
    options = "".join(f" --{key} {value}" for key, value in asked.items() if value)
    return {
        "command": f"python experiments/solvers.py run {name}{root}{options}",
        "date": time.strftime("%Y-%m-%d"),
        "hardware": devices() | {"threads": "1"},
        "seconds": round(seconds),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "config": STUDIES[name] | {"priors": PRIORS, "shards": len(PRIORS)},
        "data_fingerprints": prints,
        "probe": "scikit-learn LogisticRegression, standardised targets, max_iter=1000, C in names",
        "not_run": "random projection but with " + ", ".join(RANDOM_WITH) + "; consensus with none",
    }


@app.command()
def run(
    name: str,
    root: str | None = None,
    cache: Annotated[Path | None, typer.Option()] = None,
    minutes: float = 25.0,
    seeds: str = "0,1,2",
    sizes: str | None = None,
    solvers: str | None = None,
    results: Path = RESULTS,
) -> None:
    """Measure the grid of ``digits`` or ``cifar10``, or a part of it, and add it to the results.

    What ``minutes`` do not suffice for is named in the results. ``solvers`` restricts the grid to
    these, with PCA and targets as they are.
    """
    study, started, cells, left = STUDIES[name], time.perf_counter(), list[Any](), list[Any]()
    asked = {"seeds": seeds, "sizes": sizes, "solvers": solvers}
    wanted = [int(size) for size in sizes.split(",")] if sizes else SIZES[name]
    with compute(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, prints = opened(study, root, cache or cache_dir() / "solvers")
        for seed, size in itertools.product(map(int, seeds.split(",")), wanted):
            setting = settled(data[0], size, seed)
            for cell in grid(size, study["dim"], solvers):
                if time.perf_counter() - started > 60 * minutes:
                    left.append(cell | {"seed": seed})
                else:
                    cells += judge(data, setting, cell | {"seed": seed}, study["dim"], not solvers)
            about = provenance(name, asked, prints, time.perf_counter() - started)
            save(results / f"solvers-{name}.json", about | {"out_of_time": left}, cells)


def save(file: Path, about: dict[str, Any], cells: list[dict[str, Any]]) -> None:
    """Add a run's cells to those of other runs; a cell measured twice keeps the newer numbers."""
    found = json.loads(file.read_text()) if file.exists() else {"runs": [], "cells": []}
    plain = json.loads(json.dumps(about))
    for run in found["runs"]:
        if any(run[part] != plain[part] for part in ("data_fingerprints", "config")):
            raise typer.BadParameter(f"{file} holds cells of other data or settings")
    runs = [run for run in found["runs"] if run["command"] != about["command"]] + [about]
    merged = {cell_key(cell): cell for cell in [*found["cells"], *cells]}
    file.parent.mkdir(exist_ok=True)
    result = {"runs": runs, "table": table(list(merged.values())), "cells": list(merged.values())}
    lines = [
        f'"{key}": [\n' + ",\n".join(json.dumps(rounded(row)) for row in rows) + "\n]"
        for key, rows in result.items()
    ]
    file.write_text("{" + ",\n".join(lines) + "}\n")


def rounded(value: Any) -> Any:
    """Return the same with numbers of four decimals."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def cell_key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells a cell from all others."""
    return tuple(cell[key] for key in (*KEYS, "normalisation", "seed"))


def opened(study: dict[str, Any], root: str | None, cache: Path) -> tuple[Any, list[str]]:
    """Return the train features, test features and labels, and the splits' fingerprints."""
    features, labels, prints = [], [], []
    for split, limit in zip(("train", "test"), study["limits"], strict=True):
        data = DataConfig(source=study["source"], root=root, limit=limit)
        features.append([features_of(spec, data, split, cache) for spec in PRIORS])
        labels.append(open_labels(data, split))
        prints.append(open_source(data, split).fingerprint)
    return (*features, labels), prints


@app.command()
def figure() -> None:
    """Draw the accuracy over |S|, one panel per dataset, from the results."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    drawing, panels = plt.subplots(1, len(STUDIES), figsize=(11, 4.6), layout="constrained")
    for panel, name in zip(panels, STUDIES, strict=True):
        rows = json.loads((RESULTS / f"solvers-{name}.json").read_text())["table"]
        rows = [row for row in rows if row["normalisation"] == "plain"]
        for (reference, projection, solver), style in STYLES.items():
            wanted = [reference, projection, solver]
            kind = [row for row in rows if [row[key] for key in KEYS[:3]] == wanted]
            kind.sort(key=lambda row: row["size"])
            means = [100 * row["each_c1"]["mean"] for row in kind]
            spreads = [100 * (row["each_c1"]["sd"] or 0) for row in kind]
            label = f"{solver}, {reference}" + (", random W" if projection == "random" else "")
            sizes = [row["size"] for row in kind]
            panel.errorbar(sizes, means, spreads, label=label, capsize=2, ms=4, **style)
        panel.axvline(2 * STUDIES[name]["dim"], color="0.8", lw=1, zorder=0)
        panel.set(xscale="log", xlabel="|S|, samples in the shared set", title=name)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("accuracy of a probe on any participant's targets, %")
    panels[0].legend(fontsize=8)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    app()
