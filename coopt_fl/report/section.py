"""One run's section of the page: its parts, each there or with the reason why not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from coopt_fl.optimized.provenance import Provenance
from coopt_fl.optimized.read import load
from coopt_fl.report import tables
from coopt_fl.report.collect import Run
from coopt_fl.report.curves import training_figures
from coopt_fl.report.neighbours import agreement, images_of, labels_of, neighbours
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.report.shared import Ids, Views, matches, shared_views
from coopt_fl.report.tsne import tsne_panels

Values = dict[str, Any]

SKIPPED = 8
"""Most skipped ids that are listed."""


def section(run: Run, entries: Sequence[tables.Entry]) -> Values:
    """Return what the template shows of a run and its students' entries in the overview."""
    anchor = entries[0].anchor
    return {
        "name": run.name,
        "anchor": anchor,
        "stats": tables.stats(run),
        "facts": tables.facts(run),
        "training": part(lambda: training_figures(entries)),
        "costs": part(lambda: tables.costs(run)),
        "versions": run.versions,
        "config": yaml.safe_dump(dict(run.config), sort_keys=False).rstrip(),
        "dataset": _of_dataset(run, anchor) if run.provenance else None,
    }


def _of_dataset(run: Run, anchor: str) -> Values:
    """Return the parts that are about the optimized dataset."""
    dataset = load(run.path, mmap=True)
    known, images = dataset.provenance, part(lambda: images_of(run))
    labels = labels_of(run, images)
    who = dataset.participants[dataset.participants >= 0]
    counts = np.bincount(who, minlength=len(known.contributors))
    views = part(lambda: shared_views(run))
    return {
        "participants": tables.participants(known, run.summary, counts),
        "reference": known.reference,
        "alignment": part(lambda: _alignment(known, views.there())),
        "agreement": part(lambda: agreement(dataset, labels, run.seed)),
        "labels": labels,
        "views": views,
        "panels": part(lambda: tsne_panels(run, anchor, dataset, labels, views.value)),
        "neighbours": part(lambda: neighbours(dataset, images.there(), labels, run.seed)),
        "coverage": _coverage(known, counts),
        "audit": part(lambda: _audit(run, known)),
        "privacy": known.privacy,
    }


def _alignment(known: Provenance, views: Views) -> Values:
    """Return how well each participant's targets correspond to the others'."""
    colours = {one.name: index for index, one in enumerate(known.contributors)}
    rows = zip(views.names, views.solvers, matches(views.before), matches(views.after), strict=True)
    return {
        "samples": len(views.ids),
        "rows": [
            {
                "colour": colours[name],
                "name": name,
                "solver": solver,
                "r2": known.contributors[colours[name]].r2_heldout,
                "before": before,
                "after": after,
            }
            for name, solver, before, after in rows
        ],
    }


def _coverage(known: Provenance, counts: Ids) -> Values:
    """Return who assigned how much.

    Args:
        known: the provenance.
        counts: targets of each contributor.
    """
    total = int(known.source["rows"])
    return {
        "rows": known.rows,
        "total": total,
        "skipped": len(known.skipped),
        "ids": ", ".join(str(id) for id in known.skipped[:SKIPPED])
        + (", …" if len(known.skipped) > SKIPPED else ""),
        "shares": [
            {"colour": index, "name": one.name, "rows": int(rows), "share": 100 * rows / total}
            for index, (one, rows) in enumerate(zip(known.contributors, counts, strict=True))
            if rows
        ],
        "changes": [
            {
                "origin": change["origin"],
                "blocks": len(change["blocks"]),
                "owners": ", ".join(dict.fromkeys(change["owners"])) or "nobody",
                "reason": change["reason"],
            }
            for change in known.plan_changes
        ],
    }


def _audit(run: Run, known: Provenance) -> Values:
    """Return a verdict on each participant, with the evidence against those rejected."""
    if not known.audit:
        raise LeftOut("One prior alone made all targets: there was nobody to compare it with")
    rejected = run.state.record("rejected", dict[str, Any]) or {}
    lost: dict[str, str] = {}
    for change in known.plan_changes:
        if change.get("rejected"):  # earlier manifests lack it
            rejected.setdefault(change["origin"], change)
        lost[change["origin"]] = str(change["reason"])
        for heir in change["owners"]:
            lost.pop(heir, None)  # it was lost, and came back
    named = known.audit.get("rejected", [])
    rejected = {name: {"reason": "", "evidence": {}} for name in named} | rejected
    verdicts = []
    for name in dict.fromkeys([*(one.name for one in known.contributors), *named]):
        verdict, reason, evidence = "accepted", "", list[str]()
        if name in rejected:
            verdict, reason = "rejected", rejected[name]["reason"]
            evidence = _evidence(rejected[name]["evidence"])
        elif name in lost:
            verdict, reason = "lost", lost[name]
        verdicts.append({"name": name, "verdict": verdict, "reason": reason, "evidence": evidence})
    return {
        "fraction": known.audit.get("fraction"),
        "samples": known.audit.get("samples"),
        "undecided": known.audit.get("undecided", []),
        "verdicts": verdicts,
    }


def _evidence(found: Values) -> list[str]:
    """Return the numbers behind a rejection as sentences; none for a payload refused by itself."""
    if "witnesses" not in found:
        return []
    lines = [f"Log odds against it {found['odds']:.1f}; {found['limit']:.1f} are enough."]
    for partner, one in found["witnesses"].items():
        lines.append(
            f"{partner}: {one['far']} of {one['samples']} samples are farther apart than usual; "
            f"{one['usual']:.0%} are if both are right, {one['chance']:.0%} if one is not."
        )
    return lines
