"""One run's section of the page: its parts, each with a value or the reason why it is left out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from coopt_fl.federation.state import RunState
from coopt_fl.optimized.provenance import Provenance
from coopt_fl.optimized.read import load
from coopt_fl.report import tables
from coopt_fl.report.collect import Run
from coopt_fl.report.curves import training_figures
from coopt_fl.report.neighbours import agreement, images_of, labels_of, neighbours
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.report.shared import Views, matches, shared_views
from coopt_fl.report.tsne import tsne_panels

Values = dict[str, Any]


def section(run: Run, entries: Sequence[tables.Entry]) -> Values:
    """Return the template's values for a run, whose ``entries`` are those in the overview."""
    return {
        "run": run,
        "anchor": entries[0].anchor,
        "images": tables.images(run),
        "training": part(lambda: training_figures(entries)),
        "judged": tables.judged(run),
        "costs": part(lambda: tables.costs(run)),
        "config": yaml.safe_dump(dict(run.config), sort_keys=False).rstrip(),
        "dataset": _of_dataset(run, entries[0].anchor) if run.provenance else None,
    }


def _of_dataset(run: Run, anchor: str) -> Values:
    """Return the parts on the optimized dataset."""
    dataset = load(run.path, mmap=True)
    known, images = dataset.provenance, part(lambda: images_of(run))
    labels = part(lambda: labels_of(run, images))
    who = dataset.participants[dataset.participants >= 0]
    views = part(lambda: shared_views(run))
    return {
        "counts": np.bincount(who, minlength=len(known.contributors)).tolist(),
        "rates": {row["name"]: row for row in (run.summary or {}).get("participants", [])},
        "alignment": part(lambda: _alignment(views.there())),
        "agreement": part(lambda: agreement(dataset, labels.there(), run.seed)),
        "labels": labels,
        "views": views,
        "panels": part(lambda: tsne_panels(run, anchor, dataset, labels.value, views.value)),
        "neighbours": part(lambda: neighbours(dataset, images.there(), labels.value, run.seed)),
        "audit": part(lambda: _audit(run, known)),
    }


def _alignment(views: Views) -> dict[str, tuple[str, float, float]]:
    """Return, by participant, its solver and its :func:`matches` before and after alignment."""
    columns = zip(views.solvers, matches(views.before), matches(views.after), strict=True)
    return dict(zip(views.names, columns, strict=True))


def _audit(run: Run, known: Provenance) -> Values:
    """Return the audited participants, with evidence on those that were rejected or lost."""
    if not known.audit:
        raise LeftOut("One prior alone made all targets: there was nobody to compare it with")
    named = known.audit.get("rejected", [])
    removals = [change for change in known.plan_changes if change.get("rejected")]
    rejected = (  # earlier manifests only name them
        {name: {"reason": "", "evidence": {}} for name in named}
        | {change["origin"]: change for change in reversed(removals)}
        | (RunState(run.path).record("rejected", dict[str, Any]) or {})
    )
    lost: dict[str, str] = {}
    for change in known.plan_changes:
        lost[change["origin"]] = str(change["reason"])
        for heir in change["owners"]:
            lost.pop(heir, None)  # it came back, as it got blocks
    names = dict.fromkeys([*(one.name for one in known.contributors), *named])
    return {"names": list(names), "rejected": rejected, "lost": lost}
