"""Loading a configuration: YAML and ``KEY=VALUE`` in; a typed config, or *all* errors, out."""

import copy
import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from coopt_fl.config.schema import Config, DataConfig, ParticipantConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.remote import shown

NEEDS_ROOT = ("imagefolder", "parquet", "tiny_imagenet")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A participant's name: it names files, too."""

RESERVED = "consensus"
"""What the summary calls a reference that is nobody's."""

NOT_IN_KEY = ("student", "simulation", "probe", "deadline", "min_participants", "payload")
"""Settings that may change when a run is continued."""


def load_config(config: str = "digits", overrides: Sequence[str] = ()) -> Config:
    """Return the configuration named ``config`` with ``overrides`` applied.

    Args:
        config: a name in ``conf/`` or the path of a YAML file.
        overrides: ``KEY=VALUE`` strings; list items by index, as in ``participants.1.prior=...``.

    Raises:
        ConfigError: naming every unknown key, wrong type and impossible combination at once.
    """
    return from_tree(_read(_find(config)), overrides, config)


def from_tree(tree: dict[str, Any], overrides: Sequence[str], name: str) -> Config:
    """Return the configuration in ``tree`` with ``overrides``; ``name`` is what errors call it."""
    return _loaded(tree, overrides, name, _combinations)


def data_from(tree: dict[str, Any], overrides: Sequence[str], name: str) -> DataConfig:
    """Return the data settings in ``tree`` with ``overrides``, ``data.KEY=VALUE``, of no run."""
    return _loaded({"data": tree}, overrides, name, lambda config: _of_data(config.data)).data


def _loaded(
    tree: dict[str, Any],
    overrides: Sequence[str],
    name: str,
    rules: Callable[[Config], list[str]],
) -> Config:
    """Return what ``tree`` says with ``overrides``, if ``rules`` find nothing wrong with it."""
    problems: list[str] = []
    tree = copy.deepcopy(tree)
    for override in overrides:
        _override(tree, override, problems)
    values = _checked(Config, tree, "", problems)
    if not problems:
        merged = OmegaConf.merge(OmegaConf.structured(Config), values)
        loaded = typing.cast(Config, OmegaConf.to_object(merged))
        problems += rules(loaded)
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"configuration {name!r} cannot be used:{lines}")
    if loaded.data.root is not None:
        loaded.data.root = str(Path(loaded.data.root).expanduser().resolve())
    return loaded


def conf_dir() -> Path:
    """Return the folder of the shipped configurations: in the wheel, or beside the package."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def config_names() -> list[str]:
    """Return the names of the shipped configurations."""
    return sorted(path.stem for path in conf_dir().glob("*.yaml"))


def to_dict(config: Config) -> dict[str, Any]:
    """Return ``config`` as plain dicts, lists and scalars."""
    return dataclasses.asdict(config)


def dataset_key(config: Config, fingerprint: str) -> str:
    """Return the sha256 of everything that the optimized dataset depends on.

    The data's ``fingerprint`` stands for ``data.root``.
    """
    text = json.dumps({"config": keyed(config), "fingerprint": fingerprint}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(config: Config) -> dict[str, Any]:
    """Return the settings that the dataset key is made of.

    Where the files lie, how they are transported and what is trained on the result is not among
    them; nor is ``data.on_error``, which changes nothing about blocks that were finished.
    """
    part = to_dict(config)
    for elsewhere in NOT_IN_KEY:
        del part[elsewhere]
    for elsewhere in ("root", "on_error", "shards"):
        del part["data"][elsewhere]
    del part["optimize"]["chunk_mb"]
    return part


def _find(config: str) -> Path:
    path = Path(config)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        names = ", ".join(config_names())
        raise ConfigError(f"no configuration file {config}; the shipped ones are {names}")
    shipped = conf_dir() / f"{config}.yaml"
    if shipped.is_file():
        return shipped
    raise ConfigError(
        f"no configuration named {config!r}{_nearest(config, config_names())}: "
        f"give one of {', '.join(config_names())}, or the path of a .yaml file"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def _override(tree: dict[str, Any], override: str, problems: list[str]) -> None:
    """Set one ``KEY=VALUE`` in the raw tree; a list's next index begins a new item."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override!r} is not KEY=VALUE")
        return
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
        parsed = typing.cast(dict[str, Any], value)["value"]
    except (YAMLError, OmegaConfBaseException) as error:
        problems.append(f"{key}: {text!r} is not a YAML value ({' '.join(str(error).split())})")
        return
    node: Any = tree
    words = key.split(".")
    for word, following in itertools.pairwise(words):
        empty: Any = [] if following.isdigit() else {}
        node = _child(node, word, empty, key, problems)
        if node is None:
            return
    _put(node, words[-1], parsed, key, problems)


def _child(node: Any, word: str, empty: Any, key: str, problems: list[str]) -> Any:
    if isinstance(node, dict):
        if node.get(word) is None:
            node[word] = empty
        return node[word]
    if isinstance(node, list) and word.isdigit() and int(word) <= len(node):
        if int(word) == len(node):
            node.append(empty)
        return node[int(word)]
    return problems.append(f"{key}: there is no {word!r} in it{_length(node)}")


def _put(node: Any, word: str, value: Any, key: str, problems: list[str]) -> None:
    if isinstance(node, dict):
        node[word] = value
    elif isinstance(node, list) and word.isdigit() and int(word) < len(node):
        node[int(word)] = value
    else:
        problems.append(f"{key}: there is no {word!r} in it{_length(node)}")


def _length(node: Any) -> str:
    return f" (a list of {len(node)}, counted from 0)" if isinstance(node, list) else ""


def _checked(kind: Any, tree: Any, prefix: str, problems: list[str]) -> dict[str, Any]:
    """Return ``tree`` with its values converted to the types of dataclass ``kind``."""
    if not isinstance(tree, dict):
        problems.append(f"{prefix.rstrip('.')}: {tree!r} must hold keys and values")
        return {}
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in fields:
            problems.append(f"{key}: no such key{_nearest(key, list(all_keys()))}")
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _checked(hints[name], value or {}, f"{key}.", problems)
        elif typing.get_origin(hints[name]) is list:
            values[name] = _participants(value, key, problems)
        else:
            values[name] = _scalar(hints[name], value, key, fields[name].metadata, problems)
    return values


def _participants(value: Any, key: str, problems: list[str]) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        problems.append(f"{key}: {value!r} must be a list of {{name, prior, weight}}")
        return []
    return [
        _checked(ParticipantConfig, item, f"{key}.{index}.", problems)
        for index, item in enumerate(value)
    ]


def _scalar(
    hint: Any, value: Any, key: str, rules: typing.Mapping[str, Any], problems: list[str]
) -> Any:
    optional = isinstance(hint, types.UnionType)
    kind = next(arg for arg in typing.get_args(hint) if arg is not type(None)) if optional else hint
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    allowed = _allowed(kind, optional, rules)
    wrong_type = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if wrong_type or not _within(value, rules):
        near = _nearest(value, rules["choices"]) if isinstance(value, str) else ""
        problems.append(f"{key}: {value!r} is not allowed{near}; allowed: {allowed}")
    return value


def _within(value: Any, rules: typing.Mapping[str, Any]) -> bool:
    if rules["choices"]:
        return value in rules["choices"]
    if rules["minimum"] is not None and not rules["minimum"] <= value <= rules["maximum"]:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return rules["above"] is None or rules["above"] < value


def _allowed(kind: type, optional: bool, rules: typing.Mapping[str, Any]) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    text = ", ".join(rules["choices"]) or names[kind]
    if rules["minimum"] is not None:
        text += f", at least {rules['minimum']}"
    if rules["maximum"] < float("inf"):
        text += f", at most {rules['maximum']}"
    if rules["above"] is not None:
        text += f", above {rules['above']}"
    return text + (", or null" if optional else "")


def _combinations(config: Config) -> list[str]:
    """Return what is wrong with keys that are each right on their own."""
    names = [participant.name for participant in config.participants]
    problems = [
        f"participants.{i}.name: {name!r} is not allowed; allowed: letters, digits, '-', '_' and "
        f"'.', at most 64, and not {RESERVED!r}"
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
    if config.data.limit is not None and config.shared.size > config.data.limit:
        problems.append(
            f"shared.size: {config.shared.size} is more than data.limit={config.data.limit}"
        )
    return problems


def _of_data(data: DataConfig) -> list[str]:
    """Return what is wrong with the data settings among themselves."""
    problems = _of_url("data.shards", data.shards)
    if data.source in NEEDS_ROOT and data.root is None:
        problems.append(f"data.root: missing; {data.source} needs the folder of its files")
    return problems


def _of_url(key: str, url: str | None) -> list[str]:
    """Return what is wrong with a URL that is published with the dataset."""
    if not url or "://" not in url or shown(url) == url:
        return []
    return [
        f"{key}: {shown(url)!r} must have no user, password or query, for it is published with "
        "the dataset; give credentials in the environment, as docs/deployment.md says"
    ]


def all_keys(kind: Any = Config, prefix: str = "") -> Iterator[str]:
    """Yield every key that can be set, list items with index 0."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from all_keys(hint, f"{prefix}{field.name}.")
        elif typing.get_origin(hint) is list:
            yield from all_keys(typing.get_args(hint)[0], f"{prefix}{field.name}.0.")
        else:
            yield prefix + field.name


def _nearest(word: str, names: Sequence[str]) -> str:
    """Return " (did you mean ...?)" or nothing; a list index counts as index 0."""
    plain = ".".join("0" if part.isdigit() else part for part in word.split("."))
    found = difflib.get_close_matches(plain, names, n=1, cutoff=0.5)
    if not found:
        tail = plain.rpartition(".")[2]
        found = [name for name in names if name.rpartition(".")[2] == tail][:1]
    return f" (did you mean {found[0]}?)" if found else ""
