"""What the commands print for people: tables made of the same values that ``--json`` gives.

Names, paths and messages come from outside, and rich would read "[b]" and ":x:" in a string as
markup; so every cell and every title is a Text, which is printed as it is.
"""

from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Values = dict[str, Any]

PIPE_WIDTH = 120
"""Columns of a table that is not printed on a terminal."""


def summary(found: Values) -> RenderableType:
    """Render the summary of a run."""
    dataset, student, comparison = found["dataset"], found["student"], found["comparison"]
    table = _table(f"Participants (aligned to: {found['reference']})")
    table.add_column("participant", no_wrap=True)
    table.add_column("prior", overflow="fold")
    for heading in ("uniformity", "R2", "samples", "seconds", "samples/s", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found["participants"]:
        _row(
            table,
            row["name"],
            row["prior"],
            _number(row["uniformity"]),
            _number(row["r2_heldout"]),
            f"{row['samples']:,}",
            f"{row['seconds']:.1f}",
            f"{row['samples_per_s']:.1f}",
            f"{row['mb']:.2f}",
        )
    judged = _table("Linear probe (accuracy on held-out images)")
    judged.add_column("features of")
    judged.add_column("accuracy", justify="right")
    _row(judged, f"student {student['model']}", _percent(student["probe_accuracy"]), style="bold")
    _row(judged, "the same, randomly initialised", _percent(comparison["random_init"]))
    _row(judged, "the reference prior itself", _percent(comparison["reference_prior"]))
    spent = "  ".join(f"{phase} {seconds:.1f}" for phase, seconds in found["seconds"].items())
    lines = Text(
        f"Optimized dataset: {dataset['rows']:,} x {dataset['dim']} in {dataset['path']}\n"
        f"Digest: {dataset['digest']}\n"
        f"Seconds: {spent}"
    )
    return Group(table, judged, lines)


def trained(found: Values) -> RenderableType:
    """Render the outcome of a training."""
    loss = found["loss_per_epoch"]
    return Text(
        f"Student {found['model']}: {found['epochs']} epochs in {found['seconds']:.1f} s, "
        f"loss {loss[0]:.4f} -> {loss[-1]:.4f}\n"
        f"Checkpoint: {found['checkpoint']}"
    )


def pretrained(found: Values) -> RenderableType:
    """Render each seed of a pretraining, and mean and spread over them."""
    table = _table(f"{found['objective']}, {found['model']}")
    for heading in ("seed", "epochs", "seconds", "loss", "spread", "random", "probe"):
        table.add_column(heading, justify="right")
    for one in found["seeds"]:
        end = one["curve"][-1]
        row = (f"{one['seconds']:.1f}", f"{end['loss']:.4f}", f"{end['spread']:.2f}")
        rates = (_percent(one["random_accuracy"]), _percent(one["accuracy"]))
        _row(table, str(one["seed"]), str(one["epochs"]), *row, *rates)
    return Group(table, Text(_over_seeds(found)))


def _over_seeds(found: Values) -> str:
    accuracy, seconds = found["accuracy"], found["seconds"]
    lines = []
    if accuracy:
        lines.append(f"Probe {_spread(accuracy, '.1%')} after {_spread(seconds, '.1f')} s")
    made = found["seeds"][0]["preparation"]
    if made:
        lines.append(
            f"Targets took {made['sum']:.1f} s on one device, {made['max']:.1f} s with one for "
            "each participant; the seconds above do not contain them"
        )
    if made and not made["alone"]:
        lines.append(
            "These are too high: participants shared a device; simulation.actors=1 "
            "measures each alone"
        )
    if found["speed_up"]:
        lines += _faster(found["speed_up"], bool(made))
    return "\n".join([*lines, f"Results: {found['path']}/seed-*/pretrain.json"])


def _faster(found: Values, prepared: bool) -> list[str]:
    """Say how many times faster a training is than a baseline, in both senses."""
    prepared |= found["sum"] != found["max"]  # the baseline was
    target = found["accuracy"] and f", {_spread(found['accuracy'], '.1%')}"
    lines = []
    for which, clock in (("sum", "one device for all"), ("max", "a device for each participant")):
        epochs, reached = found[which]["equal_epochs"], found[which]["to_accuracy"]
        lines.append(
            f"Against {found['objective']}{f', targets counted with {clock}' if prepared else ''}: "
            f"{_spread(epochs, '.2f')} times as fast for equal epochs, "
            + (f"{_spread(reached, '.2f')} times" if reached else "never")
            + f" to its final accuracy{target or ''}"
            + (f" ({reached['n']} of {epochs['n']} seeds)" if reached else "")
        )
    return lines if prepared else lines[:1]


def _spread(found: Values, form: str) -> str:
    """Return the mean over the seeds, and the spread of more than one."""
    return f"{found['mean']:{form}}" + (f" ± {found['std']:{form}}" if found["n"] > 1 else "")


def probed(found: Values) -> RenderableType:
    """Render a student's accuracies."""
    table = _table(f"Linear probe of {found['checkpoint']}")
    table.add_column("fitted by")
    table.add_column("accuracy", justify="right")
    for method, accuracy in found["accuracy"].items():
        _row(table, method, _percent(accuracy))
    return table


def inspected(found: Values) -> RenderableType:
    """Render the provenance and what is wrong."""
    facts = _table(found["path"], show_header=False)
    for key in ("rows", "dim", "digest", "reference", "source", "normalisation", "seed"):
        _row(facts, key, str(found["provenance"][key]))
    skipped = found["provenance"]["skipped"]
    if skipped:
        _row(facts, "skipped ids", ", ".join(map(str, skipped)))
    people = _table("Contributors")
    for heading in ("name", "prior", "weights_sha256", "uniformity", "r2_heldout"):
        people.add_column(heading, overflow="fold")
    for one in found["provenance"]["contributors"]:
        _row(
            people,
            one["name"],
            one["prior"],
            one["weights_sha256"][:16],
            _number(one["uniformity"]),
            _number(one["r2_heldout"]),
        )
    problems = found["problems"]
    verdict = "\n".join(f"WRONG: {problem}" for problem in problems) or (
        "Every checksum is right and every id is there once."
    )
    return Group(facts, people, Text(verdict, style="red" if problems else "green"))


def reported(found: Values) -> RenderableType:
    """Render where the report is."""
    return Text(
        f"Report of {', '.join(found['runs'])}: {found['report']} ({found['bytes'] / 1e6:.2f} MB)"
    )


def published(found: Values) -> RenderableType:
    """Render what was published as shards."""
    written = f"{found['written']} of them now" if found["written"] else "all there already"
    return Text(
        f"Shards of {found['source']}: {found['rows']:,} images in {found['files']:,} files "
        f"({written}), {found['bytes'] / 1e6:.1f} MB\n"
        f"Manifest: {found['manifest_sha256']}\n"
        f"Participants read them with data.shards={found['url']}"
    )


def configuration(found: Values) -> RenderableType:
    """Render a configuration as YAML."""
    return Text(yaml.safe_dump(found, sort_keys=False).rstrip())


def examined(found: Values) -> RenderableType:
    """Render what can be used here."""
    facts = _table("This host", show_header=False)
    for key, value in {**found["devices"], **found["versions"]}.items():
        _row(facts, key, str(value))
    tables = [facts]
    for kind in ("priors", "sources"):
        table = _table(kind.capitalize())
        table.add_column(kind[:-1], overflow="fold")
        table.add_column("usable here, or why not", overflow="fold")
        for name, problem in found[kind].items():
            _row(table, name, Text(problem or "yes", style="" if problem else "green"))
        tables.append(table)
    return Group(*tables)


def certified(found: Values) -> RenderableType:
    """Render what a new certificate is for, and whether participants must learn of its CA."""
    ca = "a new CA: give its ca.crt to all participants" if found["ca_is_new"] else "the same CA"
    return Text(
        f"Server certificate for {', '.join(found['names'])}\n"
        f"Valid until {found['server_expires']}, signed by {ca} (valid until "
        f"{found['ca_expires']})\n"
        f"Folder: {found['folder']}"
    )


def key_pair(found: Values) -> RenderableType:
    """Render where a participant's keys are."""
    return Text(f"Private key, to keep: {found['private']}\nPublic key: {found['public']}")


def _table(title: str, *, show_header: bool = True) -> Table:
    """Return an empty table, at least as wide as its title, which is printed as it is."""
    plain = Text(title, style="table.title")
    return Table(
        title=plain, title_justify="left", show_header=show_header, min_width=plain.cell_len
    )


def _row(table: Table, *cells: str | Text, style: str | None = None) -> None:
    """Add a row of cells that are printed as they are."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), style=style)


def _percent(accuracy: float | None) -> str:
    return "no labels" if accuracy is None else f"{100 * accuracy:.1f}%"


def _number(value: float | None) -> str:
    """Show a number; one who was lost before the alignment has none."""
    return "" if value is None else f"{value:.3f}"
