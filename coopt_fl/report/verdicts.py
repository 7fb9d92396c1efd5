"""Coverage and audit: who assigned how many targets, what changed hands, and who was rejected."""

from typing import Any

from coopt_fl.federation.state import RunState
from coopt_fl.optimized.provenance import Provenance
from coopt_fl.report.shared import Ids

Values = dict[str, Any]

SHOWN = 8
"""Most skipped ids that are listed."""


def coverage(known: Provenance, counts: Ids) -> Values:
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
        "ids": ", ".join(str(id) for id in known.skipped[:SHOWN])
        + (", …" if len(known.skipped) > SHOWN else ""),
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


def audit(known: Provenance, state: RunState) -> Values:
    """Return a verdict on each participant, with the evidence against those rejected."""
    rejected = state.record("rejected", dict[str, Any]) or {}
    left: dict[str, str] = {}
    for change in known.plan_changes:
        if change.get("rejected"):  # which earlier manifests lack
            rejected.setdefault(change["origin"], change)
        left[change["origin"]] = str(change["reason"])
        for heir in change["owners"]:  # is back if it was lost
            left.pop(heir, None)
    names = [one.name for one in known.contributors]
    names += [name for name in known.audit.get("rejected", []) if name not in names]
    return {
        "fraction": known.audit.get("fraction"),
        "samples": known.audit.get("samples"),
        "undecided": known.audit.get("undecided", []),
        "verdicts": [_verdict(name, known, rejected, left) for name in names],
    }


def _verdict(name: str, known: Provenance, rejected: Values, left: dict[str, str]) -> Values:
    if name in rejected or name in known.audit.get("rejected", []):
        found = rejected.get(name, {"reason": "", "evidence": {}})
        return {
            "name": name,
            "verdict": "rejected",
            "reason": found["reason"],
            "evidence": _evidence(found["evidence"]),
        }
    if name in left:
        return {"name": name, "verdict": "lost", "reason": left[name], "evidence": []}
    return {"name": name, "verdict": "accepted", "reason": "", "evidence": []}


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
