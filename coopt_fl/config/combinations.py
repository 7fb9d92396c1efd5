"""Checks between keys: values that are each valid on their own but not together."""

import json
import re
from collections.abc import Iterator

from coopt_fl.config.schema import (
    AssignmentConfig,
    Config,
    DataConfig,
    SimulationConfig,
    TargetsConfig,
)
from coopt_fl.core.remote import shown
from coopt_fl.core.typed import LICENCE
from coopt_fl.registry import COLUMNS, PARTS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A participant's name, which is used in file names, too."""

NAMES = "letters, digits, '-', '_' and '.', at most 64"
"""The pattern of :data:`NAME` in words."""

RESERVED = "consensus"
"""The name that the summary gives to a reference that is no participant's prior."""

PARTITION = re.compile(r"iid|dirichlet:(?P<alpha>\d*\.?\d+(e[-+]?\d+)?)|column:\S.*")
"""What ``assignment.partition`` may be."""

MOST_ALPHA = 1e6
"""Largest concentration of a Dirichlet distribution; shares are practically equal far below it."""


def combinations(config: Config) -> list[str]:
    """Return a message for each combination of values that cannot be used."""
    names = [participant.name for participant in config.participants]
    problems = [
        f"participants.{i}.name: {name!r} is not allowed; allowed: {NAMES}, and not {RESERVED!r}"
        for i, name in enumerate(names)
        if not NAME.fullmatch(name) or name == RESERVED
    ]
    problems += [
        f"participants.{i}.prior: missing" for i, p in enumerate(config.participants) if not p.prior
    ]
    problems += [
        f"participants: the name {name!r} is given {names.count(name)} times"
        for name in sorted(set(names))
        if name and names.count(name) > 1
    ]
    if not names:
        problems.append("participants: at least one is needed")
    if config.min_participants is not None and config.min_participants > len(names):
        problems.append(
            f"min_participants: {config.min_participants} is more than the {len(names)} "
            "participants listed"
        )
    problems += _of_url("payload.route", config.payload.route) + data_combinations(config.data)
    problems += [
        f"participants.{i}.license: {participant.license!r} is not {LICENCE.words}"
        for i, participant in enumerate(config.participants)
        if participant.license is not None and not LICENCE.holds(participant.license)
    ]
    problems += _of_simulation(config.simulation)
    problems += [*_of_partition(config), *_of_assignment(config.assignment), *_of_consensus(config)]
    if config.data.limit is not None and config.shared.size > config.data.limit:
        problems.append(
            f"shared.size: {config.shared.size} is more than data.limit={config.data.limit}"
        )
    return problems


def _of_simulation(simulation: SimulationConfig) -> Iterator[str]:
    address = simulation.address
    if address is not None and not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        yield f"simulation.address={address} must be HOST:PORT of a running Ray cluster"
    if address is not None and simulation.actors is not None:
        yield (
            "simulation.actors cannot be chosen with simulation.address: as many actors start as "
            "fit on the cluster; raise simulation.cpus for fewer"
        )


def _of_partition(config: Config) -> Iterator[str]:
    """Yield what is wrong with the partition, or has no meaning together with it."""
    assignment, count = config.assignment, len(config.participants)
    setting = f"assignment.partition={assignment.partition}"
    form = PARTITION.fullmatch(assignment.partition)
    if form is None or not 0 < float(form["alpha"] or 1) <= MOST_ALPHA:
        yield (
            f"{setting} must be iid, dirichlet:ALPHA with ALPHA above 0 and at most "
            f"{MOST_ALPHA:g}, or column:NAME"
        )
    elif assignment.partition != AssignmentConfig().partition:
        if assignment.by != AssignmentConfig().by:
            yield (
                f"assignment.by: {assignment.by} has no meaning with {setting}, which decides who "
                "gets which samples; leave it out"
            )
        if config.min_participants is not None and config.min_participants < count:
            yield (
                f"min_participants: {config.min_participants} of {count} cannot go on alone with "
                f"{setting}, where no participant takes over another's samples; leave it out"
            )


def _of_assignment(assignment: AssignmentConfig) -> Iterator[str]:
    part = PARTS.has("assignment", assignment.by) and PARTS.find("assignment", assignment.by)
    limited = assignment.most != AssignmentConfig().most
    if limited and part and part.shipped and not part.fact("by_region"):
        choose = ", or choose competence" * (assignment.partition == AssignmentConfig().partition)
        yield (
            f"assignment.most={json.dumps(assignment.most)} has no meaning with "
            f"assignment.by={assignment.by}, which gives each its share; leave it out{choose}"
        )


def _of_consensus(config: Config) -> Iterator[str]:
    """Yield the settings with which the choice of a consensus has no meaning."""
    targets = config.targets
    if targets.consensus == TargetsConfig().consensus:
        return
    against = against_consensus(targets)
    if config.reference == "best":
        against["reference=best"] = "set reference=consensus"
    for setting, cure in against.items():
        yield (
            f"targets.consensus={targets.consensus} has no meaning with {setting}, which rules "
            f"out a consensus: {cure}, or leave targets.consensus out"
        )


def against_consensus(targets: TargetsConfig) -> dict[str, str]:
    """Return each setting that rules out a consensus as reference, with its cure."""
    plain, found = TargetsConfig(), dict[str, str]()
    if targets.projection != plain.projection:
        found[f"targets.projection={targets.projection}"] = f"set it to {plain.projection}"
    if targets.solver == "none":
        found["targets.solver=none"] = "choose another solver"
    return found


def data_combinations(data: DataConfig) -> list[str]:
    """Return a message for each combination of data settings that cannot be used."""
    problems = _of_url("data.shards", data.shards) + _of_url("data.root", data.root)
    problems += _of_columns(data)
    if data.license is not None and not LICENCE.holds(data.license):
        problems.append(f"data.license: {data.license!r} is not {LICENCE.words}")
    needs_root = PARTS.has("source", data.source) and PARTS.find("source", data.source)
    if needs_root and needs_root.fact("needs_root") and data.root is None:
        given = " (images from Python: source.save(DIR) writes it)" * (data.source == "arrays")
        problems.append(f"data.root: missing; {data.source} needs the folder of its files{given}")
    return problems


def _of_columns(data: DataConfig) -> list[str]:
    """Return what is wrong with the keys that choose columns and splits."""
    problems = []
    if data.split.train is not None and data.split.train == data.split.test:
        problems.append(f"data.split: both are {data.split.train}; judge on another split")
    part = PARTS.has("source", data.source) and PARTS.find("source", data.source)
    if part and part.shipped and data.source != "python":
        problems += [
            f"data.{key}: data.source={data.source} has none to choose; leave it out"
            for key in COLUMNS
            if getattr(data, key) != getattr(DataConfig(), key) and key not in part.fact("reads")
        ]
    return problems


def _of_url(key: str, url: str | None) -> list[str]:
    """Return what is wrong with a URL that is sent to every participant."""
    if not url or "://" not in url or shown(url) == url:
        return []
    return [
        f"{key}: {shown(url)!r} must have no user, password or query, since it is sent to every "
        "participant; give credentials in the environment, as docs/deployment.md says"
    ]
