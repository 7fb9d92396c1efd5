"""Arguments that calls share: configuration, changes, images, priors, output, progress."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import nn

from coopt_fl.config.key import dataset_key, keyed
from coopt_fl.config.load import from_tree, load_config, tree_of
from coopt_fl.config.overrides import changed, settings_of
from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import expanded, require_utf8
from coopt_fl.core.progress import Level, Progress, console_progress
from coopt_fl.data import OwnSource, open_source
from coopt_fl.data.source import NoSplitError
from coopt_fl.given import given
from coopt_fl.priors import Prior

SOURCE = "source"
"""The folder in a run's directory for images that were passed from Python."""

Chosen = str | Path | Mapping[str, Any] | Config
"""A configuration: a name in ``conf/``, a YAML file, nested values as in one, or a Config."""

Settings = Mapping[str, Any] | Sequence[str]
"""Changes: {"student.epochs": 2}, or ["student.epochs=2"]."""

Shown = Progress | Level | None
"""How progress is shown: "normal" or "verbose" on standard error, "quiet" or None not at all."""


@dataclass(frozen=True)
class Job:
    """A call's resolved arguments.

    Attributes:
        config: the configuration of the run.
        out: its output directory.
        source: the images, if they were passed from Python.
    """

    config: Config
    out: Path
    source: OwnSource | None

    def keep_source(self) -> None:
        """Save images passed from Python in ``out``, where every command finds them.

        Raises:
            OutputError: ``out`` has other images.
        """
        if self.source is None:
            return
        place = self.out / SOURCE
        with suppress(NoSplitError):  # nothing is saved there yet, or only a part
            saved = open_source(DataConfig(source="arrays", root=str(place)))
            if saved.fingerprint != self.source.fingerprint:
                raise OutputError(
                    f"{self.out} belongs to a run on other images; give another out, or delete "
                    "that directory to start anew"
                )
        self.source.save(place)


@contextmanager
def telling(progress: Shown) -> Iterator[Progress]:
    """Yield the Progress for a call, see :data:`Shown`; raise ConfigError for an unknown level."""
    if isinstance(progress, str):
        if progress not in get_args(Level):
            raise ConfigError(
                f"progress={progress!r} is not allowed; allowed: {', '.join(get_args(Level))}, None"
            )
        with console_progress(progress) as display:
            yield display
    else:
        yield progress or Progress()


@contextmanager
def job_of(
    chosen: Chosen,
    settings: Settings,
    out: str | Path | None,
    participants: Sequence[Mapping[str, Any]] | None,
    source: OwnSource | None,
    progress: Progress,
    kind: Callable[[Config], str] = lambda config: "",
) -> Iterator[Job]:
    """Yield a call's resolved arguments; until the block ends, all processes find its objects.

    Args:
        chosen: the configuration.
        settings: changes to it.
        out: the output directory; None: the default.
        participants: replace those of the configuration.
        source: replaces the images of the configuration.
        progress: shows the output directory.
        kind: returns the suffix of the default output directory's name.

    Raises:
        ConfigError: the configuration, a participant or the combination cannot be used.
    """
    tree, objects = tree_of(chosen), dict[str, Prior]()
    if participants is not None:
        tree["participants"] = [_participant(one, objects) for one in participants]
    changes = changes_of(settings)
    if source is not None:
        if twice := [
            key for key in ("source", "root", "shards") if changed(changes, f"data.{key}")
        ]:
            raise ConfigError(f"source= gives the images: leave out data.{', data.'.join(twice)}")
        tree["data"] = (tree.get("data") or {}) | {"source": "arrays", "root": ".", "shards": None}
    config = from_tree(tree, changes, name_of(chosen))
    place = expanded(out) if out else _default_out(chosen, config, source, kind(config))
    if source is not None:
        config.data.root = str((place / SOURCE).resolve())
    require_utf8(place, "--out", OutputError)
    progress.say(f"output directory: {place}")
    with given({id.partition(":")[2]: prior for id, prior in objects.items()}):
        yield Job(config, place, source)


def _participant(entry: Mapping[str, Any], objects: dict[str, Prior]) -> dict[str, Any]:
    """Return a participant as in YAML; a prior made from a module is added to ``objects``."""
    prior = entry.get("prior")
    if isinstance(prior, nn.Module):
        raise ConfigError(
            f"the prior of {entry.get('name')} is a module, whose preprocessing is not known: "
            "give coopt_fl.Prior.from_module(module, name=..., size=..., mean=..., std=...)"
        )
    if not isinstance(prior, Prior):
        return dict(entry)
    if prior.id.startswith("module:"):  # any other can be loaded by its specification
        objects[prior.id] = prior
    return {**entry, "prior": prior.id}


def _default_out(chosen: Chosen, config: Config, source: OwnSource | None, kind: str) -> Path:
    """Return ``runs/NAME``, with part of the dataset key if settings of the dataset are changed."""
    plain = "-".join(filter(None, ("runs/" + name_of(chosen), kind)))
    if isinstance(chosen, str | Path) and source is None:
        with suppress(ConfigError):  # some configurations need a setting to be complete
            usual = load_config(str(chosen))
            if keyed(usual) == keyed(config) and usual.data.root == config.data.root:
                return Path(plain)
    fingerprint = (source or open_source(config.data)).fingerprint
    return Path(f"{plain}-{dataset_key(config, fingerprint)[:8]}")


def name_of(chosen: Chosen) -> str:
    """Return the name of a configuration in file names."""
    return Path(chosen).stem if isinstance(chosen, str | Path) else "run"


def changes_of(settings: Settings) -> list[str]:
    """Return the changes as ``KEY=VALUE`` strings."""
    return settings_of(settings) if isinstance(settings, Mapping) else list(settings)
