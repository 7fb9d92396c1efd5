"""Loading a configuration: YAML and ``KEY=VALUE`` in; a typed config, or *all* errors, out."""

import copy
import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import operator
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coopt_fl.config.places import placed
from coopt_fl.config.schema import (
    AuditConfig,
    Config,
    DataConfig,
    ParticipantConfig,
    SimulationConfig,
)
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.files import expanded, is_file, require_utf8
from coopt_fl.core.remote import shown
from coopt_fl.core.typed import LICENCE
from coopt_fl.plugins import load_plugins, outside_parts, resolved
from coopt_fl.registry import COLUMNS, OPEN, PARTS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A participant's name: it names files, too."""

NAMES = "letters, digits, '-', '_' and '.', at most 64"
"""The same in words."""

RESERVED = "consensus"
"""What the summary calls a reference that is nobody's."""

TYPES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list[str]: "a list of texts",
}
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "above": ("above", operator.gt),
}
"""The rules of :class:`coopt_fl.config.schema.Rules` that numbers are compared by."""

NOT_IN_KEY = (
    "student",
    "simulation",
    "probe",
    "deadline",
    "min_participants",
    "payload",
    "plugins",
    "tracker",
)
"""Settings that may change when a run is continued."""


def load_config(config: str = "digits", overrides: Sequence[str] = ()) -> Config:
    """Return the configuration named ``config`` with ``overrides`` applied.

    Args:
        config: a name in ``conf/`` or the path of a YAML file.
        overrides: ``KEY=VALUE`` strings; list items by index, as in ``participants.1.prior=...``.

    Raises:
        ConfigError: naming every unknown key, wrong type and impossible combination at once; or a
            plug-in cannot be imported.
    """
    return from_tree(tree_of(config), overrides, config)


def tree_of(chosen: str | Path | Mapping[str, Any] | Config) -> dict[str, Any]:
    """Return a configuration as nested values: of a name, a YAML file, such values, or a Config.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    if isinstance(chosen, Config):
        return dataclasses.asdict(chosen)
    return copy.deepcopy(dict(chosen)) if isinstance(chosen, Mapping) else _read(_find(str(chosen)))


def read_tree(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the raw keys and values of the configuration ``config``, with ``overrides``.

    Raises:
        ConfigError: there is no such file, or an override has no place in it; types and names
            are not checked.
    """
    problems: list[str] = []
    tree = tree_of(config)
    for override in overrides:
        _override(tree, override, problems)
    if problems:
        raise ConfigError("; ".join(problems))
    return tree


def data_from(tree: dict[str, Any], overrides: Sequence[str], name: str) -> DataConfig:
    """Return the data settings in ``tree`` with ``overrides``, ``data.KEY=VALUE``, of no run."""
    return from_tree({"data": tree}, overrides, name, whole=False).data


def from_tree(
    tree: dict[str, Any], overrides: Sequence[str], name: str, *, whole: bool = True
) -> Config:
    """Return the configuration in ``tree`` with ``overrides``; ``name`` is what errors call it.

    Its plug-ins are imported. Unless it is ``whole``, only its data settings are checked to fit
    together.
    """
    problems: list[str] = []
    tree = copy.deepcopy(tree)
    for override in overrides:
        _override(tree, override, problems)
    _import_plugins(tree, Path.cwd())
    loaded: Config = _typed(Config, tree, "", problems)
    problems = problems or (_combinations(loaded) if whole else _of_data(loaded.data))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"configuration {name!r} cannot be used:{lines}")
    if loaded.data.root is not None:
        loaded.data.root = placed(loaded.data)
        require_utf8(loaded.data.root, "data.root", DataError)
    if loaded.student.init is not None and ":" not in loaded.student.init:
        loaded.student.init = os.path.realpath(expanded(loaded.student.init))
    return loaded


def settings_of(changes: Mapping[str, Any]) -> list[str]:
    """Return settings given as values, {"student.epochs": 2}, as ``KEY=VALUE`` strings."""
    return [
        f"{key}={json.dumps(value, default=_plain, ensure_ascii=False)}"
        for key, value in changes.items()
    ]


def changed(overrides: Sequence[str], key: str) -> Any:
    """Return what ``overrides`` set ``key`` to, or None."""
    tree: Any = {}
    for override in overrides:
        _override(tree, override, [])
    for word in key.split("."):
        tree = tree.get(word) if isinstance(tree, dict) else None
    return tree


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's, and anything else, such as a path, as text."""
    return value.item() if hasattr(value, "item") else str(value)


def conf_dir() -> Path:
    """Return the folder of the shipped configurations: in the wheel, or beside the package."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def config_names() -> list[str]:
    """Return the names of the shipped configurations."""
    return sorted(path.stem for path in conf_dir().glob("*.yaml"))


def dataset_key(config: Config, fingerprint: str) -> str:
    """Return the sha256 of everything that the optimized dataset depends on.

    The data's ``fingerprint`` stands for ``data.root``.
    """
    text = json.dumps({"config": keyed(config), "fingerprint": fingerprint}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(config: Config) -> dict[str, Any]:
    """Return the settings that the dataset key is made of.

    Where the files lie, how they are transported, which licences they have, and what is trained on
    the result is not among them; nor are ``data.on_error`` and ``data.max_pixels``, which change
    nothing about blocks that were finished. The fingerprint of the data tells which column and
    which files of the train split were read. Parts from plug-ins come with what they were imported
    from.
    """
    part = dataclasses.asdict(config)
    for elsewhere in NOT_IN_KEY:
        del part[elsewhere]
    for elsewhere in ("root", "on_error", "max_pixels", "shards", "license", *COLUMNS):
        del part["data"][elsewhere]
    for participant in part["participants"]:
        del participant["license"]
    del part["optimize"]["chunk_mb"]
    if part["data"]["decode"] == DataConfig().decode:  # for keys of before there was a choice
        del part["data"]["decode"]
    if part["audit"]["policy"] == AuditConfig().policy:  # for keys of before there was a choice
        del part["audit"]["policy"]
    if outside := plugins_used(config):
        part["plugins"] = outside
    return part


def plugins_used(config: Config) -> dict[str, str]:
    """Return the parts that made the dataset and did not ship, each with its origin.

    See :func:`coopt_fl.plugins.outside_parts`.
    """
    return outside_parts(
        {
            "source": [config.data.source],
            "prior": [participant.prior for participant in config.participants],
            "solver": [config.targets.solver],
            "projection": [config.targets.projection],
            "reference": [config.reference],
            "assignment": [config.assignment.by],
            "audit": [config.audit.policy],
        }
    )


def student_code(config: Config) -> dict[str, str]:
    """Return the student's and the objective's origin, where they did not ship."""
    student = config.student
    return outside_parts({"student": [student.model], "objective": [student.objective]})


def _find(config: str) -> Path:
    """Return the path of the file that ``config`` names."""
    names, path = ", ".join(config_names()), Path(config)
    if path.suffix in (".yaml", ".yml"):
        problem = f"no configuration file {config}; the shipped ones are {names}"
    else:
        path = conf_dir() / f"{config}.yaml"
        problem = (
            f"no configuration named {config!r}{nearest(config, config_names())}: "
            f"give one of {names}, or the path of a .yaml file"
        )
        if config in all_keys():
            problem = f"{config!r} is a setting: write {config}=VALUE"
    if not is_file(path, ConfigError):
        raise ConfigError(problem)
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(tree).__name__}")
    plain = {str(key): value for key, value in tree.items()}
    _name_plugins(plain, path.parent)
    return plain


def _name_plugins(tree: dict[str, Any], folder: Path) -> list[str]:
    """Make the paths of the plug-ins in ``tree`` absolute, and return the plug-ins."""
    given = tree.get("plugins")
    given = [given] if isinstance(given, str) else given
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        tree["plugins"] = [resolved(one, folder) for one in given]
        return list(tree["plugins"])
    return []  # anything else is refused by its type


def _import_plugins(tree: dict[str, Any], folder: Path) -> None:
    """Import what the configuration names, before the names of its parts are looked up."""
    load_plugins(_name_plugins(tree, folder))


def _override(tree: dict[str, Any], override: str, problems: list[str]) -> None:
    """Set one ``KEY=VALUE`` in the raw tree; a list's next index begins a new item."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override!r} is not KEY=VALUE")
        return
    node: Any = tree
    words = key.split(".")
    try:
        parsed = _parsed(text, _field_of(words))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problems.append(f"{key}: {text!r} is not a YAML value ({' '.join(str(error).split())})")
        return
    for word, following in itertools.zip_longest(words, words[1:]):
        place = _place(node, word, append=following is not None)
        if place is None:
            length = f" (a list of {len(node)}, counted from 0)" if isinstance(node, list) else ""
            problems.append(f"{key}: there is no {word!r} in it{length}")
            return
        if following is None:
            node[place] = parsed
        elif node[place] is None:
            node[place] = [] if following.isdigit() else {}
        node = node[place]


def _parsed(text: str, field: dataclasses.Field[Any] | None) -> Any:
    """Return the value that ``text`` means for a key.

    Where a key is text, so is the value (2024, ~ and "a #b" are paths), but for null and nothing,
    and what is in quotes. All else is YAML without comments.
    """
    kinds = [] if field is None else [*typing.get_args(field.type)] or [field.type]
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    is_list = field is not None and field.type == list[str] and text.startswith("[")
    if str in kinds and not is_list:
        return yaml.safe_load(text) if quoted or text in ("", "null") else text
    if kinds and not is_list and not quoted and "#" in text:
        return text  # which is refused, where YAML would leave out the rest
    value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
    return typing.cast(dict[str, Any], value)["value"]


def _field_of(words: Sequence[str]) -> dataclasses.Field[Any] | None:
    """Return the field that a key sets; None of a whole section, and where there is none."""
    kind: Any = Config
    for word in words:
        if dataclasses.is_dataclass(kind):
            field = {one.name: one for one in dataclasses.fields(kind)}.get(word)
            if field is None:
                return None
            kind = field.type
        elif kind == list[ParticipantConfig] and word.isdigit():
            field, kind = None, ParticipantConfig
        else:
            return None
    return None if field is None or dataclasses.is_dataclass(kind) else field


def _place(node: Any, word: str, append: bool) -> Any:
    """Return the key or index that ``word`` is in ``node``; None where it is neither."""
    if isinstance(node, dict):
        node.setdefault(word)
        return word
    if isinstance(node, list) and word.isdigit():
        if append and int(word) == len(node):
            node.append(None)
        if int(word) < len(node):
            return int(word)
    return None


def _typed(kind: Any, tree: Any, prefix: str, problems: list[str]) -> Any:
    """Return the instance of the dataclass ``kind`` that ``tree`` holds the values of."""
    if not isinstance(tree, dict):
        problems.append(f"{prefix.rstrip('.')}: {tree!r} must hold keys and values")
        return kind()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in fields:
            problems.append(f"{key}: no such key{nearest(key, list(all_keys()))}")
        elif dataclasses.is_dataclass(fields[name].type):
            values[name] = _typed(fields[name].type, value or {}, f"{key}.", problems)
        elif name != "participants":
            values[name] = _scalar(fields[name], value, key, problems)
        elif isinstance(value, list):
            values[name] = [
                _typed(ParticipantConfig, item, f"{key}.{index}.", problems)
                for index, item in enumerate(value)
            ]
        else:
            problems.append(f"{key}: {value!r} must be a list of {{name, prior, weight}}")
    return kind(**values)


def _scalar(field: dataclasses.Field[Any], value: Any, key: str, problems: list[str]) -> Any:
    """Return ``value``, a whole number as a float where one is wanted, if the rules allow it."""
    if field.type == list[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            problems.append(f"{key}: {value!r} is not allowed; allowed: {TYPES[list[str]]}")
        return value
    kinds: list[Any] = [*typing.get_args(field.type)] or [field.type]
    kind, optional = kinds[0], len(kinds) > 1
    if value is None and optional:
        return None
    if kind is float and type(value) is int:
        value = float(value)
    choices = choices_of(field)
    allowed, fine = [", ".join(choices) or TYPES[kind]], type(value) is kind
    for rule, (words, holds) in BOUNDS.items():
        if rule in field.metadata:
            bound = field.metadata[rule]
            allowed.append(f"{words} {bound}")
            fine = fine and holds(value, bound)
    known = not choices or value in choices or _is_open(field, value)
    if not (fine and known and (kind is not float or math.isfinite(value))):
        near = nearest(value, choices) if isinstance(value, str) else ""
        allowed += ["or null"] * optional
        problems.append(f"{key}: {value!r} is not allowed{near}; allowed: {', '.join(allowed)}")
    return value


def choices_of(field: dataclasses.Field[Any]) -> list[str]:
    """Return what a key may be, where that is one of a few names; plug-ins add to them."""
    kind = field.metadata.get("part")
    return PARTS.names(kind) if kind else list(field.metadata.get("choices", ()))


def _is_open(field: dataclasses.Field[Any], value: Any) -> bool:
    """Tell whether ``value`` names a part, and more behind a colon, as ``python:`` does."""
    kind = field.metadata.get("part")
    return kind in OPEN and isinstance(value, str) and ":" in value and PARTS.has(kind, value)


def _of_simulation(simulation: SimulationConfig) -> Iterator[str]:
    address = simulation.address
    if address is not None and not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        yield f"simulation.address={address} must be HOST:PORT of a running Ray cluster"
    if address is not None and simulation.actors is not None:
        yield (
            "simulation.actors cannot be chosen with simulation.address: as many start as fit; "
            "raise simulation.cpus for fewer"
        )


def _combinations(config: Config) -> list[str]:
    """Return what is wrong with keys that are each right on their own."""
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
    problems += _of_url("payload.route", config.payload.route) + _of_data(config.data)
    problems += [
        f"participants.{i}.license: {participant.license!r} is not {LICENCE.words}"
        for i, participant in enumerate(config.participants)
        if participant.license is not None and not LICENCE.holds(participant.license)
    ]
    problems += _of_simulation(config.simulation)
    if config.data.limit is not None and config.shared.size > config.data.limit:
        problems.append(
            f"shared.size: {config.shared.size} is more than data.limit={config.data.limit}"
        )
    return problems


def _of_data(data: DataConfig) -> list[str]:
    """Return what is wrong with the data settings among themselves."""
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
    """Return what is wrong with the keys that say which column and split is read."""
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
    """Return what is wrong with a URL that every participant is told."""
    if not url or "://" not in url or shown(url) == url:
        return []
    return [
        f"{key}: {shown(url)!r} must have no user, password or query, for every participant "
        "is told it; give credentials in the environment, as docs/deployment.md says"
    ]


def all_keys(kind: Any = Config, prefix: str = "") -> Iterator[str]:
    """Yield every key that can be set, list items with index 0."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            yield from all_keys(field.type, f"{prefix}{field.name}.")
        elif field.name == "participants":
            yield from all_keys(ParticipantConfig, "participants.0.")
        else:
            yield prefix + field.name


def nearest(word: str, names: Sequence[str]) -> str:
    """Return " (did you mean ...?)" or nothing; a list index counts as index 0."""
    plain = ".".join("0" if part.isdigit() else part for part in word.split("."))
    found = difflib.get_close_matches(plain, names, n=1, cutoff=0.5)
    if not found:
        tail = plain.rpartition(".")[2]
        found = [name for name in names if name.rpartition(".")[2] == tail][:1]
    return f" (did you mean {found[0]}?)" if found else ""
