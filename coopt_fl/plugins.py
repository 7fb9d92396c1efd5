"""Import code from outside this package, and record its origin.

A run finds such code in three ways: by the key ``plugins`` (modules, or files), as installed entry
points (:data:`coopt_fl.registry.GROUP`), and by the names ``python:MODULE:FUNCTION`` of sources,
priors and students.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import expanded, is_file
from coopt_fl.registry import PARTS, code_of

OUTSIDE = "python:"
"""Prefix of a source, prior or student that is a function to import."""


def load_plugins(plugins: Sequence[str]) -> None:
    """Import modules, by name or by the path of a ``.py`` file, which register their parts.

    A module that is already imported is not imported again.

    Raises:
        ConfigError: there is no such module, it fails, or it registers a name that is taken.
    """
    for plugin in plugins:
        if plugin.endswith(".py"):
            _import_file(expanded(plugin))
        else:
            _import(plugin, f"the plug-in {plugin!r}")


def resolved(plugin: str, folder: Path) -> str:
    """Return the absolute path of a plug-in given as a file below ``folder``; a module as it is."""
    return str((folder / expanded(plugin)).resolve()) if plugin.endswith(".py") else plugin


def function(name: str) -> Callable[..., Any]:
    """Return the function that ``python:MODULE:FUNCTION`` names.

    Raises:
        ConfigError: ``name`` has another form, or cannot be imported.
    """
    module, _, attribute = name.removeprefix(OUTSIDE).partition(":")
    if not module or not attribute:
        raise ConfigError(f"{name!r}: write python:MODULE:FUNCTION")
    found = getattr(_import(module, repr(name)), attribute, None)
    if not callable(found):
        raise ConfigError(f"{name!r}: {module} has no function {attribute!r}")
    return found  # type: ignore[no-any-return]


def outside_parts(names: dict[str, list[str]]) -> dict[str, str]:
    """Return those parts that are not shipped with this package, each with its :func:`origin`.

    Args:
        names: the names of the parts that a run uses, by kind.
    """
    found: dict[str, str] = {}
    for kind, used in names.items():
        for name in used:
            if name.startswith(OUTSIDE):
                found[f"{kind} {name}"] = origin(function(name.partition("?")[0]))
            elif PARTS.has(kind, name) and not (part := PARTS.find(kind, name)).shipped:
                found[f"{kind} {part.name}"] = part.origin
    return found


def origin(made: Any) -> str:
    """Return the distribution and version that an object comes from, or the sha256 of its file.

    For code of a notebook it is the sha256 of the source text. None of these covers what the code
    imports.
    """
    kind = code_of(made)
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if owner := _distribution(kind.__module__):
        return owner
    if file is not None and kind.__module__ != "__main__":
        return f"{Path(file).name} sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        return "a program, unknown"
    return f"a program, sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _distribution(module: str) -> str | None:
    """Return "NAME VERSION" of the distribution that installed a module; None if there is none.

    Editable installs are left out, since their files can change while the version does not.
    """
    for name in _owners().get(module.partition(".")[0], ()):
        found = metadata.distribution(name)
        links = found.read_text("direct_url.json") or ""
        if '"editable": true' not in links and '"editable":true' not in links:
            return f"{name} {found.version}"
    return None


@cache
def _owners() -> Mapping[str, list[str]]:
    """Return the distributions by module, cached: this scans everything that is installed."""
    return metadata.packages_distributions()


def _import(module: str, what: str) -> ModuleType:
    try:
        with PARTS.importing():
            return import_module(module)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ConfigError(
                f"{what}: there is no module {error.name!r}; install it, put its folder on "
                "PYTHONPATH, or give the path of a .py file as a plug-in"
            ) from None
        raise ConfigError(f"{what} needs {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_failed(what, error)) from error


def _import_file(path: Path) -> None:
    """Import a file under a module name derived from its path, as every process here does."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"coopt_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, path)
    if not is_file(path, ConfigError) or spec is None or spec.loader is None:
        raise ConfigError(f"plugins: there is no file {path}")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        with PARTS.importing():
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ConfigError) or not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(_failed(f"the plug-in {path}", error)) from error


def _failed(what: str, error: Exception | SystemExit) -> str:
    reason = " ".join(str(error).split())
    return f"{what} cannot be imported ({type(error).__name__}: {reason}); mend it and run again"
