"""Are honest participants ever accused, and which lies are seen? Counts over many seeds.

    python -m experiments.audit digits
    python -m experiments.audit cifar10 --root DIR

A run of the platform is played with features that are computed once: shared set, blocks, units,
owners, alignments and held-out targets are drawn anew with each seed, and what participants answer
is judged as the platform does. A lie is told about everything except the shared set, which a liar
knows; where a lie allows it, an id that is asked twice gets the same answer twice.
"""

import itertools
import json
import math
import platform
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.cache import cache_dir
from coopt_fl.core.runtime import compute, devices
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import make_blocks, shared_set
from coopt_fl.data.blocks import make_units
from coopt_fl.policies.assignment import assign_blocks
from coopt_fl.policies.audit import PREDICTS, Expected, inconsistent, odd_spread, spread
from coopt_fl.policies.evidence import FALSE_ALARMS, Comparison, judge
from coopt_fl.targets import Alignment, consensus_targets, fit_projection, heldout_targets
from coopt_fl.targets.alignment import r2_score
from coopt_fl.targets.solvers import SOLVERS
from experiments.solvers import features_of, mapped

RESULTS = Path(__file__).parent / "results"
PRIORS = {
    **{f"lite{i}": f"timm:tf_efficientnet_lite{i}@bundled?size=96" for i in range(3)},
    **{f"random{i}": f"random:tf_efficientnet_lite{i}?size=96" for i in range(3)},
    "random18": "random:resnet18?size=96",
    "trivial64": "trivial:64",
    "trivial512": "trivial:512",
}
STUDIES: dict[str, dict[str, Any]] = {
    "digits": {"source": "digits", "limit": None, "block_rows": 64},
    "cifar10": {"source": "parquet", "limit": 6000, "block_rows": 256},
}
MIXES = {
    "strong": ("lite0", "lite1", "lite2"),
    "mixed": ("lite0", "lite1", "random0", "trivial64"),
    "six": ("lite0", "lite1", "lite2", "random0", "random18", "trivial512"),
    "weak": ("random0", "random2", "trivial64", "random18"),
}
SHARED = ((25, 16), (60, 32), (130, 128), (260, 128))  # |S| and n
FRACTIONS = (0.01, 0.03, 0.1)
LIED_IN = ((60, "best"), (260, "consensus"))  # |S| and reference
BLOCK_ROWS = (20, 40, 64, 128, 512, 1024, 4096)
TESTS = ("itself", "spread")
Targets = np.ndarray
Answers = list[Targets]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, eq=False)
class Played:
    """A run: ids, who owns which block, and every participant's honest targets (N, n).

    ``swapped`` are targets by an untrained prior of the same width, ``fitted_on`` the blocks that
    the reference's projection was fitted on: a PCA is wider there than anywhere else.
    """

    shared: np.ndarray
    blocks: list[np.ndarray]
    owners: list[str]
    expected: dict[str, Expected]
    honest: dict[str, Targets]
    swapped: dict[str, Targets]
    fitted_on: list[int]
    rng: np.random.Generator


def play(features: dict[str, Targets], cell: dict[str, Any], block_rows: int) -> Played:
    """Draw and fit everything that precedes the work."""
    seed, names = cell["seed"], list(MIXES[cell["mix"]])
    rows = len(features[names[0]])
    rng = np.random.default_rng(derive_seed(seed, "audit study"))
    shared = shared_set(np.arange(rows), cell["size"], seed)
    blocks = make_blocks(np.arange(rows), block_rows, seed)
    order = [names[k] for k in rng.permutation(len(names))]
    owners = [order[k] for k in assign_blocks(len(blocks), [1.0] * len(names))]
    expected, honest, swapped = {}, {}, {}
    wanted = {name: features[name][shared] for name in names}
    able = [name for name in names if features[name].shape[1] >= cell["dim"]]
    reference = able[seed % len(able)]  # whoever it is: an election would pick the trained
    fitted_on = []
    if cell["reference"] == "consensus":
        targets = consensus_targets(list(wanted.values()), cell["dim"])
    else:
        fitted_on = [k for k, owner in enumerate(owners) if owner == reference]
        fitted_on = fitted_on[: math.ceil(4 * cell["dim"] / block_rows)]
        shard = features[reference][np.concatenate([blocks[k] for k in fitted_on])]
        projection = projected(shard[: 4 * cell["dim"]], cell["dim"], seed)
        targets = mapped(wanted[reference], projection)
    for name in names:
        if fitted_on and name == reference:
            alignment, heldout = projection, targets
        else:
            draw, solver = derive_seed(seed, "align", name), cell["solver"]
            exact = wanted[name].astype(np.float64), targets.astype(np.float64)
            alignment = Alignment(*SOLVERS[solver](*exact, draw), 0.0, solver)
            heldout = heldout_targets(*exact, solver, draw)
        r2 = r2_score(targets.astype(np.float64), heldout.astype(np.float64))
        expected[name] = Expected(mapped(wanted[name], alignment), heldout, r2)
        honest[name] = mapped(features[name], alignment).astype(np.float16)
        other = features.get(f"random{name[-1]}" if kind(name) == "trained" else name)
        swapped[name] = mapped(other, alignment).astype(np.float16)
    return Played(shared, blocks, owners, expected, honest, swapped, fitted_on, rng)


def projected(rows: Targets, dim: int, seed: int) -> Alignment:
    """Return what ``fit_projection`` does; its PCA of 1,280 columns takes half a second."""
    if len(rows) < 2 * dim:
        return fit_projection(rows, dim, "pca", seed)
    mean = rows.mean(axis=0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:dim].T
    axes /= np.sqrt(np.mean(((rows - mean) @ axes) ** 2))
    return Alignment(axes, -mean @ axes, 1.0, "projection:pca")


def _by_id(change: Callable[[Played, str], Targets]) -> Callable[..., Answers]:
    """Make a lie of what a participant says of each sample, wherever it is asked for it."""

    def lie(run: Played, name: str, units: list[np.ndarray]) -> Answers:
        said = change(run, name).astype(np.float16)
        said[run.shared] = run.honest[name][run.shared]
        return [said[unit] for unit in units]

    return lie


def _permuted(some: Callable[[int], range]) -> Callable[..., Answers]:
    """Make a lie of the right targets in the wrong order, within some of its units."""

    def lie(run: Played, name: str, units: list[np.ndarray]) -> Answers:
        answers = [run.honest[name][unit] for unit in units]
        mine = [k for k, owner in enumerate(run.owners) if owner == name]
        for k in [mine[j] for j in some(len(mine))]:
            free = np.flatnonzero(~np.isin(units[k], run.shared))
            answers[k][free] = answers[k][run.rng.permutation(free)]
        return answers

    return lie


def _noise(run: Played, name: str) -> Targets:
    y = run.honest[name].astype(np.float32)
    return y.mean(axis=0) + y.std() * run.rng.standard_normal(y.shape)


def _constant(run: Played, name: str) -> Targets:
    return np.repeat(run.honest[name][:1], len(run.honest[name]), axis=0)


def _collapsed(run: Played, name: str) -> Targets:
    y = run.honest[name]
    return y[run.rng.integers(0, 10, len(y))]


def _line(run: Played, name: str) -> Targets:
    y = run.honest[name].astype(np.float32)
    return y.mean(axis=0) + np.outer(run.rng.standard_normal(len(y)), y[0] - y.mean(axis=0))


def _wrong_samples(run: Played, name: str) -> Targets:
    return run.honest[name][run.rng.permutation(len(run.honest[name]))]


def _replayed(run: Played, name: str) -> Targets:
    others = [other for other in run.honest if other != name]
    return run.honest[run.rng.choice(others)][run.rng.permutation(len(run.honest[name]))]


def _rotated(run: Played, name: str) -> Targets:
    y = run.honest[name].astype(np.float32)
    turn = np.linalg.qr(run.rng.standard_normal((y.shape[1], y.shape[1])))[0]
    return (y - y.mean(axis=0)) @ turn + y.mean(axis=0)


def _some_wrong(share: float) -> Callable[[Played, str], Targets]:
    def change(run: Played, name: str) -> Targets:
        wrong = run.rng.random(len(run.honest[name])) < share
        return np.where(wrong[:, None], _wrong_samples(run, name), run.honest[name])

    return change


def _scaled(factor: float) -> Callable[[Played, str], Targets]:
    return lambda run, name: factor * run.honest[name].astype(np.float32)


LIES: dict[str, Callable[..., Answers]] = {
    "noise": _by_id(_noise),
    "constant": _by_id(_constant),
    "ten values": _by_id(_collapsed),
    "on a line": _by_id(_line),
    "targets of other samples": _by_id(_wrong_samples),
    "half of other samples": _by_id(_some_wrong(0.5)),
    "a tenth of other samples": _by_id(_some_wrong(0.1)),
    "another's, of other samples": _by_id(_replayed),
    "another's, of the same samples": _by_id(
        lambda run, name: run.honest[next(one for one in run.honest if one != name)]
    ),
    "rotated": _by_id(_rotated),
    "sign flipped": _by_id(_scaled(-1.0)),
    "scaled by 2": _by_id(_scaled(2.0)),
    "scaled by 0.5": _by_id(_scaled(0.5)),
    "scaled by 1.1": _by_id(_scaled(1.1)),
    "untrained prior instead": _by_id(lambda run, name: run.swapped[name]),
    "permuted within each block": _permuted(range),
    "permuted within one block": _permuted(lambda blocks: range(1)),
}


def alone(run: Played, name: str, units: list[np.ndarray], answers: Answers) -> dict[str, bool]:
    """Return which of a participant's own tests it fails: contradicts itself, odd spread."""
    mine = [k for k, owner in enumerate(run.owners) if owner == name]
    known, scale = run.expected[name], spread(run.expected[name].fitted)
    twice = False
    first = {int(id): row for id, row in zip(run.shared, known.fitted, strict=True)}
    for k in mine:
        pairs = [
            (y, first[i]) for i, y in zip(units[k].tolist(), answers[k], strict=True) if i in first
        ]
        if pairs:
            twice |= inconsistent(*map(np.array, zip(*pairs, strict=True)), scale) is not None
        first = {**dict(zip(units[k].tolist(), answers[k], strict=True)), **first}
    parts = [answers[k] for k in mine if k not in run.fitted_on]
    odd = any(odd_spread(part, known) for part in parts)
    return {"itself": twice, "spread": odd}


def compared(run: Played, units: list[np.ndarray], answers: Answers) -> list[Comparison]:
    """Return what was answered by two participants."""
    block_of = np.empty(sum(map(len, run.blocks)), np.int64)
    for k, block in enumerate(run.blocks):
        block_of[block] = k
    found = []
    for unit, ids in enumerate(units):
        for block in np.unique(block_of[ids]):
            if run.owners[block] != run.owners[unit]:
                here = np.flatnonzero(block_of[ids] == block)
                ours = answers[block][np.searchsorted(units[block], ids[here])]
                found.append(
                    Comparison(
                        run.owners[block],
                        int(block),
                        run.owners[unit],
                        unit,
                        ours,
                        answers[unit][here],
                    )
                )
    return found


def trials(run: Played, cell: dict[str, Any]) -> list[tuple[dict[str, Any], Counter[str]]]:
    """Judge one run where all are honest, and one for each lie told by a participant at random.

    Where no lies are told, only the largest share of audit rows is tried: it accuses most easily.
    """
    found = []
    names = list(run.expected)
    for fraction in FRACTIONS if cell["lies"] else FRACTIONS[-1:]:
        units = make_units(run.blocks, fraction, cell["seed"])
        honest = [run.honest[o][unit] for o, unit in zip(run.owners, units, strict=True)]
        told = {"none": None} | (LIES if cell["lies"] else {})
        for lie, tell in told.items():
            liar = names[run.rng.integers(len(names))] if tell else None
            if lie == "untrained prior instead" and not str(liar).startswith("lite"):
                continue
            lied = tell(run, liar, units) if tell else honest
            answers = [
                mine if owner == liar else true
                for owner, mine, true in zip(run.owners, lied, honest, strict=True)
            ]
            key = {"lie": lie, "fraction": fraction, "liar": kind(liar)}
            found.append((key, outcome(run, units, answers, liar)))
    return found


def kind(name: str | None) -> str:
    """Return what sort of prior a participant has."""
    return "" if name is None else "trained" if name.startswith("lite") else "untrained"


def outcome(
    run: Played, units: list[np.ndarray], answers: Answers, liar: str | None
) -> Counter[str]:
    """Count what is found out about the liar, and who else is accused."""
    seen = {name: alone(run, name, units, answers) for name in ([liar] if liar else run.expected)}
    comparisons = compared(run, units, answers)
    judged = judge(run.expected, comparisons)
    flagged = {test: {name for name, failed in seen.items() if failed[test]} for test in TESTS}
    flagged["others"] = set(judged.rejected)
    anyhow = set().union(*flagged.values())
    about = [one for one in comparisons if liar in (None, one.owner, one.auditor)]
    return Counter(
        {test: int(liar in names) for test, names in flagged.items()}
        | {f"honest, {test}": len(names - {liar}) for test, names in flagged.items()}
        | {
            "runs": 1,
            "found": int(liar in anyhow),
            "undecided": int(bool(judged.undecided)),
            "samples": sum(len(one.ours) for one in about),
        }
    )


def units_alone(run: Played, cell: dict[str, Any]) -> list[tuple[dict[str, Any], Counter[str]]]:
    """Count honest participants, and those whose own units fail the test of spread."""
    units = make_units(run.blocks, FRACTIONS[-1], cell["seed"])
    answers = [run.honest[o][unit] for o, unit in zip(run.owners, units, strict=True)]
    odd = [alone(run, name, units, answers)["spread"] for name in run.expected]
    counts = Counter({"runs": 1, "honest": len(odd), "honest, spread": sum(odd)})
    return [({"lie": "none"}, counts)]


def spreads(run: Played, cell: dict[str, Any]) -> list[tuple[dict[str, Any], Counter[str]]]:
    """Count odd spreads among rows of any block size, as they are, doubled and halved."""
    found = []
    for name, known in run.expected.items():
        fitted = [run.blocks[k] for k in run.fitted_on if run.owners[k] == name]
        free = np.setdiff1d(np.arange(len(run.honest[name])), np.concatenate([[], *fitted]))
        for rows in (count for count in BLOCK_ROWS if count <= len(free)):
            y = run.honest[name][run.rng.choice(free, rows, replace=False)].astype(np.float32)
            odd = {
                word: int(odd_spread((factor * y).astype(np.float16), known) is not None)
                for word, factor in (("honest", 1.0), ("doubled", 2.0), ("halved", 0.5))
            }
            key = {"size": cell["size"], "predicts": bool(known.r2 > PREDICTS), "rows": rows}
            found.append((key, Counter(runs=1, **odd)))
    return found


def cells(seed: int, lies: int) -> list[dict[str, Any]]:
    """Return the settings; with the first ``lies`` seeds lies are told in two kinds of them."""
    found = []
    for mix, (size, dim) in itertools.product(MIXES, SHARED):
        for reference, solver in (
            ("best", "ridge"),
            ("consensus", "ridge"),
            ("best", "procrustes"),
        ):
            told = solver == "ridge" and (size, reference) in LIED_IN and seed < lies
            if (reference == "best" or size >= 2 * dim) and (
                solver == "ridge" or size in (25, 260)
            ):
                setting = {"mix": mix, "size": size, "dim": dim, "reference": reference}
                found.append(setting | {"solver": solver, "seed": seed, "lies": told})
    return found


def table(rows: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """Return counts by setting; ``samples`` is the mean number of audited ones."""
    found = [json.loads(key) | counts for key, counts in rows.items()]
    for row in found:
        if "samples" in row:
            row["samples"] = round(row["samples"] / row["runs"], 1)
    return found


@app.command()
def run(
    name: str,
    root: str | None = None,
    cache: Annotated[Path | None, typer.Option()] = None,
    seeds: int = 100,
    lies: int = 30,
    spread_only: Annotated[
        bool, typer.Option(help="Only the test of spread, of honest participants.")
    ] = False,
    results: Path = RESULTS / "audit.json",
) -> None:
    """Judge ``seeds`` runs of every setting on ``digits`` or ``cifar10`` and save the counts.

    In the first ``lies`` of them lies are told as well. ``spread_only`` tries nothing but the test
    of spread, where S has fewer than 2 n samples, and saves the counts as ``NAME, spread``.
    """
    study, started = STUDIES[name], time.perf_counter()
    tried, saved, options = trials, name, f"--lies {lies}"
    if spread_only:
        tried, saved, options, lies = units_alone, f"{name}, spread", "--spread-only", 0
    data = DataConfig(source=study["source"], root=root, limit=study["limit"])
    counts: dict[str, dict[str, Counter[str]]] = {
        kind: defaultdict(Counter) for kind in ("runs", "spreads")
    }
    with compute(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = cache or cache_dir() / "audit"
        features = {key: features_of(spec, data, "train", folder) for key, spec in PRIORS.items()}
        for seed in range(seeds):
            for cell in cells(seed, lies):
                if spread_only and cell["size"] >= 2 * cell["dim"]:
                    continue
                played = play(features, cell, study["block_rows"])
                shown = {key: cell[key] for key in ("mix", "size", "dim", "reference", "solver")}
                for key, found in tried(played, cell):
                    counts["runs"][json.dumps(shown | key)].update(found)  # += drops zeros
                for key, found in spreads(played, cell):
                    counts["spreads"][json.dumps(key)].update(found)
            about = provenance(name, seed + 1, options, time.perf_counter() - started)
            save(results, saved, about, {kind: table(rows) for kind, rows in counts.items()})


def provenance(name: str, seeds: int, options: str, seconds: float) -> dict[str, Any]:
    """Return what is needed to repeat the study and to judge its numbers."""
    root = "" if name == "digits" else " --root DIR"
    packages = ("numpy", "scipy", "torch", "timm")
    return {
        "command": f"python -m experiments.audit {name}{root} --seeds {seeds} {options}",
        "date": time.strftime("%Y-%m-%d"),
        "hardware": devices() | {"threads": "1"},
        "seconds": round(seconds),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "config": STUDIES[name] | {"priors": PRIORS, "mixes": MIXES, "false_alarms": FALSE_ALARMS},
    }


def save(
    file: Path, name: str, about: dict[str, Any], tables: dict[str, list[dict[str, Any]]]
) -> None:
    """Write one study's counts beside the others', a row to a line."""
    found = json.loads(file.read_text()) if file.exists() else {}
    found[name] = {"about": about} | tables
    lines = []
    for study, one in found.items():
        parts = [f'"about": {json.dumps(one["about"])}']
        for kind in ("runs", "spreads"):
            rows = ",\n".join(json.dumps(row) for row in one[kind])
            parts.append(f'"{kind}": [\n{rows}\n]')
        lines.append(f'"{study}": {{' + ",\n".join(parts) + "}")
    file.parent.mkdir(exist_ok=True)
    file.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    app()
