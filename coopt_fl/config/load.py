"""Load a configuration from YAML and ``KEY=VALUE``, or raise *all* its errors at once."""

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coopt_fl.config.combinations import combinations, data_combinations
from coopt_fl.config.overrides import set_key
from coopt_fl.config.places import placed
from coopt_fl.config.rules import all_keys, nearest, typed_values
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.config.values import BROKEN, DoubtfulError, meant, read_yaml
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.core.files import expanded, is_file, require_utf8
from coopt_fl.plugins import load_plugins, resolved


def load_config(config: str = "digits", overrides: Sequence[str] = ()) -> Config:
    """Return the configuration named ``config`` with ``overrides`` applied.

    Args:
        config: a name in ``conf/`` or the path of a YAML file.
        overrides: ``KEY=VALUE`` strings; list items by index, as in ``participants.1.prior=...``.

    Raises:
        ConfigError: it names every unknown key and wrong type at once, or else every impossible
            combination; or a plug-in cannot be imported.
    """
    return from_tree(tree_of(config), overrides, config)


def tree_of(chosen: str | Path | Mapping[str, Any] | Config) -> dict[str, Any]:
    """Return a copy of a configuration as nested values, given its name, its file or an object.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    if isinstance(chosen, Config):
        return dataclasses.asdict(chosen)
    return copy.deepcopy(dict(chosen)) if isinstance(chosen, Mapping) else _read(_find(str(chosen)))


def read_tree(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the raw keys and values of the configuration ``config``, with ``overrides``.

    Raises:
        ConfigError: there is no such file, or an override does not fit its structure; types and
            names are not checked.
    """
    problems: list[str] = []
    tree = tree_of(config)
    for override in overrides:
        set_key(tree, override, problems)
    if problems:
        raise ConfigError("; ".join(problems))
    return tree


def data_from(tree: dict[str, Any], overrides: Sequence[str], name: str) -> DataConfig:
    """Return the data settings in ``tree`` with ``overrides``, each ``data.KEY=VALUE``."""
    return from_tree({"data": tree}, overrides, name, whole=False).data


def from_tree(
    tree: dict[str, Any], overrides: Sequence[str], name: str, *, whole: bool = True
) -> Config:
    """Return the configuration in ``tree`` with ``overrides``; errors call it ``name``.

    Its plug-ins are imported. The check of combinations covers all keys, or, unless it is
    ``whole``, the data settings alone.
    """
    problems: list[str] = []
    tree = copy.deepcopy(tree)
    for override in overrides:
        set_key(tree, override, problems)
    _import_plugins(tree, Path.cwd())
    loaded: Config = typed_values(Config, tree, "", problems)
    problems = problems or (combinations(loaded) if whole else data_combinations(loaded.data))
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"configuration {name!r} cannot be used:{lines}")
    if loaded.data.root is not None:
        loaded.data.root = placed(loaded.data)
        require_utf8(loaded.data.root, "data.root", DataError)
    if loaded.student.init is not None and ":" not in loaded.student.init:
        loaded.student.init = os.path.realpath(expanded(loaded.student.init))
    return loaded


def conf_dir() -> Path:
    """Return the folder of the shipped configurations: in the wheel, or beside the package."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def config_names() -> list[str]:
    """Return the names of the shipped configurations."""
    return sorted(path.stem for path in conf_dir().glob("*.yaml"))


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
        tree = meant(read_yaml(path.read_bytes()), Config, "") or {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path} must hold keys and values, not {type(tree).__name__}")
        plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(tree), resolve=True))
    except DoubtfulError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (*BROKEN, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    _name_plugins(plain, path.parent)
    return plain


def _name_plugins(tree: dict[str, Any], folder: Path) -> list[str]:
    """Make the paths of the plug-ins in ``tree`` absolute, and return the plug-ins."""
    given = tree.get("plugins")
    given = [given] if isinstance(given, str) else given
    if isinstance(given, list) and all(isinstance(plugin, str) for plugin in given):
        tree["plugins"] = [resolved(plugin, folder) for plugin in given]
        return list(tree["plugins"])
    return []  # the check of types refuses anything else


def _import_plugins(tree: dict[str, Any], folder: Path) -> None:
    """Import the plug-ins of a configuration, before the names of its parts are looked up."""
    load_plugins(_name_plugins(tree, folder))
