"""Terminal output of the commands: the values of ``--json``, as tables and sentences."""

from shlex import quote
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from coopt_fl.core.words import plural
from coopt_fl.report.terminal import (
    as_yaml,
    cells,
    facts_table,
    percent,
    row,
    short,
    table,
    to_copy,
)

Values = dict[str, Any]


def summary(found: Values) -> RenderableType:
    """Render the summary of a run."""
    dataset, student, comparison = found["dataset"], found["student"], found["comparison"]
    people = table(
        f"Participants (aligned to: {found['reference']})",
        "participant",
        "prior",
        numbers=("uniformity", "R2", "samples", "seconds", "samples/s", "MB"),
    )
    for one in found["participants"]:
        quality = cells(
            one | {"prior": short(one["prior"])},
            name="",
            prior="",
            uniformity=".3f",
            r2_heldout=".3f",
        )
        rates = cells(one, samples=",", seconds=".1f", samples_per_s=".1f", mb=".2f")
        row(people, *quality, *rates)
    title = "Linear probe (accuracy on held-out images)"
    judged = table(title, "features of", numbers=("accuracy",))
    row(judged, f"student {student['model']}", percent(student["probe_accuracy"]), style="bold")
    row(judged, "the same, randomly initialised", percent(comparison["random_init"]))
    row(judged, "the reference prior itself", percent(comparison["reference_prior"]))
    spent, earlier = found["seconds"], found.get("earlier_seconds", {})
    heading = "Seconds (of these in earlier attempts)" if earlier else "Seconds"
    phases = [
        f"{phase} {spent[phase]:.1f}" + (f" ({earlier[phase]:.1f})" if phase in earlier else "")
        for phase in spent
    ]
    lines = Text(
        f"Optimized dataset: {dataset['rows']:,} x {dataset['dim']} in {dataset['path']}\n"
        f"Digest: {dataset['digest']}\n"
        f"{heading}: {'  '.join(phases)}"
    )
    return Group(people, judged, lines)


def trained(found: Values) -> RenderableType:
    """Render the outcome of a training."""
    loss, checkpoint = found["loss_per_epoch"], quote(found["checkpoint"])
    lines = [
        f"Student {found['model']}: {plural(found['epochs'], 'epoch')} in "
        f"{found['seconds']:.1f} s, loss {loss[0]:.4f} -> {loss[-1]:.4f}",
        f"Checkpoint: {found['checkpoint']}",
        f"To judge it on labeled images: coopt probe {checkpoint}",
    ]
    if found.get("run"):
        lines.append(f"To see it beside its run: coopt report {quote(found['run'])}")
    return to_copy("\n".join(lines))


def pretrained(found: Values) -> RenderableType:
    """Render each seed of a pretraining, and mean and spread over them."""
    headings = ("seed", "epochs", "seconds", "loss", "spread", "random", "probe")
    each = table(f"{found['objective']}, {found['model']}", numbers=headings)
    for one in found["seeds"]:
        cost = cells(one, seed="", epochs="", seconds=".1f")
        end = cells(one["curve"][-1], loss=".4f", spread=".2f")
        row(each, *cost, *end, percent(one["random_accuracy"]), percent(one["accuracy"]))
    return Group(each, Text(_over_seeds(found)))


def _over_seeds(found: Values) -> str:
    lines, made = list[str](), found["seeds"][0]["preparation"]
    if found["accuracy"]:
        accuracy, seconds = _spread(found["accuracy"], ".1%"), _spread(found["seconds"], ".1f")
        lines.append(f"Probe {accuracy} after {seconds} s")
    if made:
        lines.append(
            f"Targets took {made['sum']:.1f} s on one device, or {made['max']:.1f} s with one "
            "device for each participant; the seconds above do not include them"
        )
    if made and not made["alone"]:
        lines.append(
            "These times are too high, because participants shared a device; simulation.actors=1 "
            "measures each alone"
        )
    if found["speed_up"]:
        lines += _faster(found["speed_up"], bool(made))
    return "\n".join([*lines, f"Results: {found['path']}/seed-*/pretrain.json"])


def _faster(found: Values, prepared: bool) -> list[str]:
    """Return sentences on the speed-up over a baseline, by epochs and by accuracy."""
    prepared |= found["sum"] != found["max"]  # then the baseline has a preparation
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
    """Return the mean over the seeds, with the spread if there is more than one."""
    return f"{found['mean']:{form}}" + (f" ± {found['std']:{form}}" if found["n"] > 1 else "")


def probed(found: Values) -> RenderableType:
    """Render a student's accuracies, and what each of them is."""
    title = f"Linear probes of {found['checkpoint']} (accuracy on held-out images)"
    judged = table(title, "classifier", "which is", numbers=("accuracy",))
    for name, accuracy in found["accuracy"].items():
        row(judged, name, found["classifiers"][name], percent(accuracy))
    if not found.get("kept"):
        return judged
    return Group(judged, to_copy(f"Stored for `coopt report` in {found['kept']}"))


MOST_CLASSES = 20
"""Most classes whose confusion matrix fits on a terminal."""


def evaluated(found: Values) -> RenderableType:
    """Render accuracies, also by class, and the confusion matrix if there are few classes."""
    title = f"Accuracy on {plural(found['test'], 'test image')} ({found['train']:,} for training)"
    ways = table(title, "classifier", numbers=("accuracy",))
    row(ways, "linear, on frozen features", percent(found["linear"]), style="bold")
    row(ways, "20 nearest neighbours", percent(found["knn"]))
    for few in found["few"]:
        accuracy = percent(few["accuracy"]) + (f" ± {100 * few['std']:.1f}" * (few["draws"] > 1))
        row(ways, f"linear, {plural(few['per_class'], 'label')} a class", accuracy)
    if found["epochs"]:
        tuned = f"fine-tuned, {plural(found['epochs'], 'epoch')}"
        row(ways, tuned, percent(found["fine_tuned"]))
    numbers = [str(one["label"]) for one in found["classes"]]
    shown = numbers if len(numbers) <= MOST_CLASSES else []
    heading = "Each class by the linear probe" + (", with the predicted classes" if shown else "")
    by_class = table(heading, "class", numbers=("images", "right", *shown))
    for one, counts in zip(found["classes"], found["confusion"], strict=True):
        right = "no images" if one["accuracy"] is None else percent(one["accuracy"])
        taken = [str(count or "") for count in counts] if shown else []
        known = f"{one['label']} {one['name']}" if one["name"] else str(one["label"])
        row(by_class, known, str(one["test"]), right, *taken)
    return Group(ways, by_class)


def embedded(found: Values) -> RenderableType:
    """Render the summary of a file of embeddings."""
    skipped = f", {plural(found['skipped'], 'image')} left out" if found["skipped"] else ""
    columns = "id, image, embedding, label" if found["labeled"] else "id, image, embedding"
    return to_copy(
        f"{plural(found['rows'], 'embedding')} of {plural(found['width'], 'number')} by "
        f"{short(found['model'])}, {found['source']}, {found['split']} split{skipped}\n"
        f"{found['file']}: {columns}"
    )


def exported(found: Values) -> RenderableType:
    """Render the exported files, and the code that loads them."""
    files = ", ".join(found["files"])
    return to_copy(
        f"Exported to {found['target']}: {files} in {found['folder']}; its features differ from "
        f"the checkpoint's by at most {found['difference']:.0e}\n\n{found['example']}"
    )


def inspected(found: Values) -> RenderableType:
    """Render the provenance of a dataset, and the faults found in it."""
    known = found["provenance"]
    keys = ("digest", "reference", "normalisation", "seed")
    facts = facts_table(
        f"Optimized dataset in {found['path']}",
        {
            "targets": f"{known['rows']:,} of {plural(known['dim'], 'number')}",
            "source": _source(**known["source"]),
            **{key: known[key] for key in keys},
        },
    )
    targets = known["config"].get("targets", {})
    made = "consensus" if known["reference"] == "consensus" else "projection"
    row(facts, f"{made}, solver", f"{targets.get(made, 'pca')}, {targets.get('solver')}")
    for part, origin in known["plugins"].items():
        row(facts, part, origin)
    row(facts, "licence", found["license"])
    if known["skipped"]:
        row(facts, "skipped ids", ", ".join(map(str, known["skipped"])))
    headings = ("name", "prior", "sha256 of its weights", "uniformity", "R2")
    people = table("Contributors", *headings)
    for one in known["contributors"]:
        who = cells(one | {"prior": short(one["prior"])}, name="", prior="", weights_sha256=".16")
        row(people, *who, *cells(one, uniformity=".3f", r2_heldout=".3f"))
    problems = found["problems"]
    verdict = "Every checksum is correct, and every id occurs exactly once."
    if problems:
        verdict = "\n- ".join([f"WRONG, {plural(len(problems), 'fault')}:", *problems])
    return Group(facts, people, Text(verdict, style="red" if problems else "green"))


def _source(name: str, fingerprint: str, rows: int, **_: Any) -> str:
    return f"{name}, {plural(rows, 'image')}, fingerprint {fingerprint:.16}"


def reported(found: Values) -> RenderableType:
    """Render the path of the report."""
    return Text(
        f"Report of {', '.join(found['runs'])}: {found['report']} ({found['bytes'] / 1e6:.2f} MB)"
    )


def published(found: Values) -> RenderableType:
    """Render the published shards, and how participants read them."""
    written = f"{found['written']} of them now" if found["written"] else "all there already"
    alone = "".join(
        f"\nOnly {name} needs {first} to {last}" for name, (first, last) in found["owners"].items()
    )
    return Text(
        f"Shards of {found['source']}: {plural(found['rows'], 'image')} in "
        f"{plural(found['files'], 'file')} "
        f"({written}), {found['bytes'] / 1e6:.1f} MB\n"
        f"Manifest: {found['manifest_sha256']}\n"
        f"Participants read them with data.shards={found['url']}{alone}"
    )


def pushed(found: Values) -> RenderableType:
    """Render what was pushed, and the command that pulls it."""
    command = to_copy(f"coopt pull {quote(found['url'])}")
    return Group(Text(f"{_transferred(found)} to {found['url']}"), command)


def pulled(found: Values) -> RenderableType:
    """Render what was pulled, and a command that trains on it."""
    root = " data.root=DIR" if found["needs_root"] else ""  # the images were not pushed
    command = to_copy(f"coopt train {quote(found['out'])}{root}")
    return Group(Text(f"{_transferred(found)} from {found['url']}"), command)


def _transferred(found: Values) -> str:
    student = "with its student" if found["student"] else "without a student"
    return (
        f"Digest: {found['digest']}\nLicence: {found['license']}\n"
        f"The dataset {student}: {plural(found['files'], 'file')} ({found['written']} of them "
        f"now), {found['bytes'] / 1e6:.1f} MB,"
    )


def configuration(found: Values) -> RenderableType:
    """Render a configuration as YAML."""
    import yaml  # slow, and no other command needs it

    return Text(yaml.safe_dump(found, sort_keys=False).rstrip())


def fitted(found: Values) -> RenderableType:
    """Render the settings that were chosen for the given images, with reasons."""
    chosen = table(found["path"], "key", "value", "reason")
    for key, value in found["values"].items():
        if key == "participants":
            value = "\n".join(one["prior"] for one in value)
        row(chosen, key, str(value), found["reasons"].get(key, ""))
    warnings = "".join(f"warning: {warning}\n" for warning in found["warnings"])
    return Group(chosen, Text(warnings, style="yellow", end=""), Text(f"Next: {found['next']}"))


def explained(found: Values) -> RenderableType:
    """Render the meaning, allowed values and default of each key, one table per section."""
    parts = list[RenderableType]()
    for section, about in found["sections"].items():
        listed = table(section or "top level", "key", "meaning", "allowed", "default")
        for key, known in found["keys"].items():
            if known["section"] == section:
                row(listed, key, known["meaning"], allowed(known), as_yaml(known["default"]))
        parts += [Text(about, style="italic"), listed]
    return Group(*parts)


def allowed(key: Values) -> str:
    """Return in words what the value of a key may be."""
    values = [", ".join(key["choices"]) or key["type"], *key["bounds"]]
    return ", ".join([*values, *["or null"] * key["nullable"]])


def examined(found: Values) -> RenderableType:
    """Render the doctor's findings: the devices, priors, sources and parts usable on this host."""
    tables = [facts_table("This host", {**found["devices"], **found["versions"]})]
    for kind in ("priors", "sources"):
        usable = table(kind.capitalize(), kind[:-1], "usable here, or why not")
        for name, problem in found[kind].items():
            row(usable, name, Text(problem or "yes", style="" if problem else "green"))
        tables.append(usable)
    tables.append(facts_table("Where students can go (coopt export)", found["exports"]))
    parts = table("Exchangeable parts", "kind", "names")
    for kind, names in found["parts"].items():
        row(parts, kind, ", ".join(names))
    tables.append(parts)
    if found["plug-ins"]:
        tables.append(facts_table("Plug-ins", found["plug-ins"]))
    return Group(*tables)


def certified(found: Values) -> RenderableType:
    """Render a new certificate, and whether participants need the certificate of a new CA."""
    ca = "a new CA: give its ca.crt to all participants" if found["ca_is_new"] else "the same CA"
    return Text(
        f"Server certificate for {', '.join(found['names'])}\n"
        f"Valid until {found['server_expires']}, signed by {ca} (valid until "
        f"{found['ca_expires']})\n"
        f"Folder: {found['folder']}"
    )


def key_pair(found: Values) -> RenderableType:
    """Render the paths of a participant's keys."""
    return Text(f"Private key, to keep: {found['private']}\nPublic key: {found['public']}")
