"""What the page says first, and the few numbers that each run begins with."""

from collections.abc import Sequence

from coopt_fl.report.collect import Run


def title(runs: Sequence[Run]) -> str:
    """Return the page's heading."""
    if len(runs) > 1:
        return f"{len(runs)} runs, side by side"
    run = runs[0]
    source = str(run.config["data"]["source"])
    if run.provenance is None:
        return f"{source}, {run.student.first.objective}" if run.student else source
    people = len(run.provenance.contributors)
    return f"{source}, optimized by {f'{people} participants' if people > 1 else 'one prior'}"


def lead(runs: Sequence[Run]) -> str:
    """Return what the page is about in one or two sentences."""
    if len(runs) > 1:
        return "What each took and what its student is worth, then every run by itself."
    known, student, said = runs[0].provenance, runs[0].student, []
    if known:
        people = len(known.contributors)
        who = f"{people} pretrained priors" if people > 1 else "One pretrained prior"
        said.append(f"{who} assigned a target to each of {known.rows:,} images.")
    accuracy = student and student.mean("accuracy")
    if student and accuracy is not None:
        start = student.mean("random_accuracy")
        before = "" if start is None else f", up from {start:.1%} untrained"
        said.append(f"A linear probe of the student gets {accuracy:.1%}{before}.")
    return " ".join(said)


def stats(run: Run) -> list[tuple[str, str]]:
    """Return the few numbers that matter most of a run, each with what it is."""
    found: list[tuple[str, str]] = []
    if run.student:
        accuracy = run.student.mean("accuracy")
        random = run.student.mean("random_accuracy")
        if accuracy is not None:
            found.append((f"{accuracy:.1%}", f"probe of the student, {run.student.first.model}"))
        if random is not None:
            found.append((f"{random:.1%}", "the same, untrained"))
    prior = (run.summary or {}).get("comparison", {}).get("reference_prior")
    if prior is not None:
        found.append((f"{prior:.1%}", "the reference prior itself"))
    if run.provenance:
        found.append((f"{run.provenance.rows:,}", f"targets of {run.provenance.dim} numbers"))
    seconds = run.student.mean("seconds") if run.student else None
    if seconds is not None:
        found.append((duration(seconds), "training"))
    return found


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
