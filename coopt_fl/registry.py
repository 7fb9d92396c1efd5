"""The registry of exchangeable parts by kind and name: shipped ones, and those of plug-ins.

The configuration's choices, error messages, ``coopt doctor`` and ``coopt config --explain`` read
the names here. A shipped part is imported when it is first used.
"""

import difflib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from coopt_fl.core.errors import ConfigError, CooptError

GROUP = "coopt_fl.plugins"
"""The entry-point group of installed plug-ins: modules that register parts when imported."""

KEYS = {
    "source": "data.source",
    "prior": "participants.N.prior",
    "solver": "targets.solver",
    "projection": "targets.projection",
    "reference": "reference",
    "assignment": "assignment.by",
    "audit": "audit.policy",
    "objective": "student.objective",
    "student": "student.model",
    "tracker": "tracker",
}
"""The kinds of parts, and the configuration key that names a part of each kind."""

OPEN = ("source", "prior", "student")
"""Kinds whose names may go on after a colon, as in ``python:MODULE:FUNCTION``."""


COLUMNS = ("image_column", "label_column", "split")
"""Keys of ``data`` that choose the columns and splits of a table."""

STATING = ("timm", "timm@bundled", "torchvision", "open_clip", "checkpoint", "random", "trivial")
"""Kinds of priors that may state the licence of their weights."""


@dataclass(frozen=True)
class Later:
    """An object of this package that is imported on first use.

    Attributes:
        where: ``MODULE:NAME``, the module relative to ``coopt_fl``.
    """

    where: str

    def get(self) -> Any:
        """Return the object; this may take seconds."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(f"coopt_fl.{module}"), name)


@dataclass(frozen=True)
class Part:
    """One exchangeable part.

    Attributes:
        kind: one of :data:`KEYS`.
        name: its name in the configuration, up to the colon for kinds in :data:`OPEN`.
        made: the object, or a :class:`Later`.
        facts: further properties by name.
        shipped: whether it comes with this package.
        origin: see :func:`coopt_fl.plugins.origin`; "" for shipped parts.
        plugin: whether a plug-in registered it, which other processes then import as well.
    """

    kind: str
    name: str
    made: Any
    facts: Mapping[str, Any] = field(default_factory=dict)
    shipped: bool = False
    origin: str = ""
    plugin: bool = False

    @property
    def object(self) -> Any:
        """The part itself; importing it may take seconds."""
        return self.made.get() if isinstance(self.made, Later) else self.made

    def call(self, *args: Any, **named: Any) -> Any:
        """Call the part.

        Raises:
            ConfigError: a part from outside failed with anything but a CooptError.
        """
        try:
            return self.object(*args, **named)
        except Exception as error:
            if self.shipped or isinstance(error, CooptError):
                raise
            inside = traceback.extract_tb(error.__traceback__)[1:]  # nothing if it cannot be called
            at = inside[-1] if inside else None
            place = at and f"{Path(at.filename).name}, line {at.lineno}, in {at.name}"
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"the {self.kind} {self.name!r} failed with {type(error).__name__}: {reason} "
                f"({place or self.origin.partition(' sha256:')[0].rstrip(',')})"
            ) from error

    def fact(self, name: str) -> Any:
        """Return the property ``name``, or None; a :class:`Later` is imported."""
        value = self.facts.get(name)
        return value.get() if isinstance(value, Later) else value


class Registry:
    """Parts by kind and name."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._parts = {(part.kind, part.name): part for part in parts}
        self._searched = self._importing = False
        self._broken: ConfigError | None = None

    def add(self, part: Part) -> None:
        """Add a part; one that a notebook or program defines again replaces the former.

        Raises:
            ConfigError: another part of that kind has that name, or the name is not allowed.
        """
        part = replace(part, plugin=self._importing)
        known, again = self._parts.get((part.kind, part.name)), _defined(part.made)
        if known is not None and not (
            again.startswith("__main__.") and _defined(known.made) == again
        ):
            by = "this package" if known.shipped else _defined(known.made)
            raise ConfigError(
                f"the {part.kind} {part.name!r} of {_defined(part.made)} has the name of one of "
                f"{by}: register it under another name"
            )
        if not part.name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"the name {part.name!r} of a {part.kind} is not allowed; allowed: letters, "
                "digits, '-' and '_'"
            )
        self._parts[part.kind, part.name] = part

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, shipped ones first; hidden ones are left out."""
        return [part.name for part in self.parts(kind) if not part.fact("hidden")]

    def shipped(self, kind: str) -> list[str]:
        """Return the names of a kind that come with this package."""
        return [part.name for part in self.parts(kind) if part.shipped and not part.fact("hidden")]

    def parts(self, kind: str) -> Iterator[Part]:
        """Yield the parts of a kind, shipped ones first."""
        return (part for part in self.all() if part.kind == kind)

    def all(self) -> Iterator[Part]:
        """Yield all parts, shipped ones first."""
        self._search()
        yield from self._parts.values()

    def has(self, kind: str, name: str) -> bool:
        """Tell whether there is a part of that name; for :data:`OPEN` kinds up to the colon."""
        self._search()
        return (kind, _stem(kind, name)) in self._parts

    def find(self, kind: str, name: str) -> Part:
        """Return a part by its name in the configuration.

        Raises:
            ConfigError: there is none.
        """
        self._search()
        part = self._parts.get((kind, _stem(kind, name)))
        if part is None:
            known = self.names(kind)
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(
                f"{KEYS[kind]}: there is no {name!r}{hint}; there are {', '.join(known)}, and a "
                "plug-in may add others (key `plugins`)"
            )
        return part

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Mark parts that are registered within the block as those of a plug-in."""
        before, self._importing = self._importing, True
        try:
            yield
        finally:
            self._importing = before

    def _search(self) -> None:
        """Import the installed plug-ins, once.

        Raises:
            ConfigError: one cannot be imported; raised again at each call.
        """
        if not self._searched:
            self._searched = True
            try:
                with self.importing():
                    for found in entry_points(group=GROUP):
                        _load(found)
            except ConfigError as error:
                self._broken = error
        if self._broken is not None:
            raise self._broken


def _load(found: EntryPoint) -> None:
    try:
        found.load()
    except Exception as error:
        of = f" of {found.dist.name}" if found.dist else ""
        raise ConfigError(
            f"the installed plug-in {found.name!r}{of} cannot be imported "
            f"({type(error).__name__}: {error}); mend or uninstall it"
        ) from error


def _stem(kind: str, name: str) -> str:
    return name.partition(":")[0] if kind in OPEN else name


def code_of(made: Any) -> Any:
    """Return the function or class behind an object: itself, its class, or that of a partial."""
    if isinstance(made, partial):
        return code_of(made.func)
    return made if hasattr(made, "__qualname__") else type(made)


def _defined(made: Any) -> str:
    """Return the module and the qualified name of the code that defines an object."""
    if isinstance(made, Later):
        return made.where
    return f"{code_of(made).__module__}.{code_of(made).__qualname__}"


def _shipped() -> Iterator[Part]:
    """Yield the shipped parts, without importing their modules."""
    for name in ("digits", "tiny_imagenet", "arrays", "synthetic"):
        yield _source(name, name)
    for name in ("cifar10", "cifar100", "fashion_mnist"):
        yield _source(name, "downloads", names=True)
    yield _source("imagefolder", "folders", reads=("split",))
    for name in ("parquet", "hf"):
        yield _source(name, name, reads=COLUMNS, names=True)
    yield _source("webdataset", "webdataset", reads=COLUMNS)
    yield _source("manifest", "manifests", reads=COLUMNS)
    yield Part("source", "python", Later("data.sources.outside:images"), shipped=True)
    yield _prior("timm", form="timm:NAME (or timm:NAME@bundled)")
    yield _prior("timm@bundled", "priors.schemes.bundled")
    yield _prior("torchvision", form="torchvision:NAME/WEIGHTS")
    yield _prior("open_clip", form="open_clip:ARCH/TAG")
    yield _prior("checkpoint", "students.checkpoint", form="checkpoint:PATH")
    yield _prior("random", form="random:NAME", options=("seed", "size"))
    yield _prior("trivial", form="trivial:DIM", options=())
    yield _prior("python", "priors.schemes.outside", form="python:MODULE:FUNCTION")
    yield _prior("module", options=())
    for name in ["ridge", "procrustes", "lstsq", "sgd", "none"]:
        yield Part("solver", name, Later(f"targets.solvers:{name}"), shipped=True)
    for name in ["pca", "random", "none"]:
        yield Part("projection", name, Later(f"targets.projection:{name}"), shipped=True)
    for name in ["consensus", "best"]:
        yield Part("reference", name, Later("policies.reference:elect"), shipped=True)
    yield Part("assignment", "weight", Later("policies.assignment:BY_WEIGHT"), shipped=True)
    measured = {"measures_speed": True}
    yield Part("assignment", "speed", Later("policies.assignment:BY_SPEED"), measured, shipped=True)
    skilled = Later("policies.competence:by_competence")
    yield Part("assignment", "competence", skilled, {"by_region": True}, shipped=True)
    yield Part("audit", "majority", Later("policies.audit:Audit"), shipped=True)
    classes = {
        "regression": "objective:Regression",
        "simclr": "contrastive:SimCLR",
        "byol": "teachers:BYOL",
        "dino": "teachers:DINO",
        "moco": "contrastive:MoCo",
        "simsiam": "teachers:SimSiam",
        "swav": "contrastive:SwAV",
        "dcl": "contrastive:DCL",
        "instdisc": "contrastive:InstanceDiscrimination",
        "rela": "teachers:ReLA",
    }
    for name, where in classes.items():
        facts = {"on_targets": name in ("regression", "rela")}
        yield Part("objective", name, Later(f"students.objectives.{where}"), facts, shipped=True)
    for name in ["convnet", "timm", "torchvision", "python"]:
        yield Part("student", name, Later(f"students.models:{name}"), shipped=True)
    trackers = {"none": "Nothing", "csv": "CSV", "tensorboard": "TensorBoard", "mlflow": "MLflow"}
    for name, made in trackers.items():
        needs = {"needs": name if name in ("tensorboard", "mlflow") else None}
        yield Part("tracker", name, Later(f"students.trackers:{made}"), needs, shipped=True)


def _source(name: str, module: str, reads: tuple[str, ...] = (), names: bool = False) -> Part:
    """Return the part of a shipped source.

    Args:
        name: its name in the configuration.
        module: its module below ``data.sources``.
        reads: those of :data:`COLUMNS` that it supports.
        names: whether it may know names of its classes beside their numbers.
    """
    where = f"data.sources.{module}"
    needs_root = bool(reads) or name in ("tiny_imagenet", "arrays")
    facts = {
        "labels": Later(f"{where}:labels"),
        "class_names": Later(f"{where}:class_names") if names else None,
        "needs_root": needs_root,
        "reads": reads,
    }
    return Part("source", name, Later(f"{where}:images"), facts, shipped=True)


def _prior(
    name: str, module: str = "", form: str = "", options: tuple[str, ...] = ("size",)
) -> Part:
    where = module or f"priors.schemes.{name}"
    facts = {
        "check": Later(f"{where}:check"),
        "license": Later(f"{where}:license") if name in STATING else None,
        "form": form,
        "options": options,
        "hidden": not form,
    }
    return Part("prior", name, Later(f"{where}:load"), facts, shipped=True)


PARTS = Registry(_shipped())
"""The registry of this process."""
