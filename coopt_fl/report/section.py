"""One run's section of the page: its parts, each there or with the reason why not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from coopt_fl.optimized.read import OptimizedDataset, load
from coopt_fl.report import headline, tables, verdicts
from coopt_fl.report.collect import Run
from coopt_fl.report.curves import training_figures
from coopt_fl.report.neighbours import agreement, neighbours
from coopt_fl.report.panels import tsne_panels
from coopt_fl.report.parts import LeftOut, part
from coopt_fl.report.pictures import images_of, labels_of
from coopt_fl.report.shared import Views, matches, shared_views

Values = dict[str, Any]


def section(run: Run, entries: Sequence[tables.Entry]) -> Values:
    """Return what the template shows of a run and its students' entries in the overview."""
    anchor = entries[0].anchor
    shown: Values = {
        "name": run.name,
        "anchor": anchor,
        "stats": headline.stats(run),
        "facts": tables.facts(run),
        "training": part(lambda: training_figures(entries)),
        "costs": part(lambda: tables.costs(run)),
        "versions": run.versions,
        "config": yaml.safe_dump(dict(run.config), sort_keys=False).rstrip(),
        "dataset": None,
    }
    if run.provenance is not None:
        shown["dataset"] = _of_dataset(run, anchor)
    return shown


def _of_dataset(run: Run, anchor: str) -> Values:
    """Return the parts that are about the optimized dataset."""
    dataset = load(run.path, mmap=True)
    known, images = dataset.provenance, part(lambda: images_of(run))
    labels = labels_of(run, images)
    who = dataset.participants[dataset.participants >= 0]
    counts = np.bincount(who, minlength=len(known.contributors))
    views = part(lambda: shared_views(run))
    alignment = part(lambda: _alignment(run, views.there()))
    same_class = part(lambda: agreement(dataset, labels, run.seed))
    panels = part(lambda: tsne_panels(run, anchor, dataset, labels, views.value))
    near = part(lambda: neighbours(dataset, images.there(), labels, run.seed))
    return {
        "participants": tables.participants(known, run.summary, counts),
        "reference": known.reference,
        "alignment": alignment,
        "agreement": same_class,
        "labels": labels,
        "views": views,
        "panels": panels,
        "neighbours": near,
        "coverage": verdicts.coverage(known, counts),
        "audit": part(lambda: _audit(run, dataset)),
        "privacy": known.privacy,
    }


def _alignment(run: Run, views: Views) -> Values:
    """Return how well each participant's targets correspond to the others'."""
    listed = run.provenance.contributors if run.provenance else []
    known = {one.name: (index, one.r2_heldout) for index, one in enumerate(listed)}
    rows = zip(views.names, views.solvers, matches(views.before), matches(views.after), strict=True)
    return {
        "samples": len(views.ids),
        "size": views.size,
        "rows": [
            {
                "colour": known[name][0],
                "name": name,
                "solver": solver,
                "r2": known[name][1],
                "before": before,
                "after": after,
            }
            for name, solver, before, after in rows
        ],
    }


def _audit(run: Run, dataset: OptimizedDataset) -> Values:
    known = dataset.provenance
    if not known.audit:
        raise LeftOut("One prior alone made all targets: there was nobody to compare it with")
    return verdicts.audit(known, run.state)
