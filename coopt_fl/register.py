"""Decorators that register exchangeable parts from outside this package.

A part has the same signature as the shipped ones of its kind, and is named in the configuration in
the same way. Its code is a module of the key ``plugins``, an installed entry point of the group
``coopt_fl.plugins``, or part of the program that calls :func:`coopt_fl.run`. ``docs/plugins.md``
has an example of each kind.

Each decorator raises ConfigError for a name that is taken, and for a part that cannot be called
with the arguments of its kind.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from coopt_fl.core.errors import ConfigError
from coopt_fl.plugins import origin
from coopt_fl.registry import PARTS, Part

T = TypeVar("T")


class Decorator(Protocol):
    """Registers a part, and returns it as it is."""

    def __call__(self, part: T, /) -> T:
        """Register ``part``."""


def source(
    name: str, *, labels: Callable[..., Any] | None = None, needs_root: bool = False
) -> Decorator:
    """Register ``images(data: DataConfig, split: str) -> Source | None``, for ``data.source``.

    ``images`` is called with the split "train" or "test", and returns None if there is no such
    split; :func:`coopt_fl.data.from_arrays` makes a source of arrays.

    Args:
        name: its name in the configuration.
        labels: maps (data, split) to int64 (N,) or None; default: the labels in the source.
        needs_root: whether ``data.root`` must be given.
    """
    return _register("source", name, "data, split", labels=labels, needs_root=needs_root)


def prior(
    name: str,
    *,
    form: str | None = None,
    check: Callable[..., None] | None = None,
    options: Sequence[str] = ("size",),
) -> Decorator:
    """Register ``load(spec: PriorSpec) -> (nn.Module, Preprocess)``, for ``NAME:...``.

    The module maps (B, 3, size, size) to features (B, m).

    Args:
        name: the scheme, before the colon.
        form: the form of a spec, for messages; default: ``NAME:...``.
        check: takes the spec; raises PriorError if ``load`` would not work here.
        options: the options that a spec may have after ``?``, of "size" and "seed".
    """
    facts = {"form": form or f"{name}:...", "check": check, "options": tuple(options)}
    return _register("prior", name, "spec", **facts)


def solver(name: str) -> Decorator:
    """Register ``solve(source, target, seed) -> (weight, bias)``, for ``targets.solver``.

    All are float64: source (S, m), target (S, n), weight (m, n), bias (n,). The function gets
    tensors on the device of the prior; it may return tensors or numpy arrays.
    """
    return _register("solver", name, "source, target, seed")


def projection(name: str) -> Decorator:
    """Register ``axes(features, dim, seed) -> (m, dim)``, for ``targets.projection``.

    All are float64; features (R, m) are the reference's, centred. The axes must be orthonormal,
    which the platform checks. Tensors and arrays as for :func:`solver`.
    """
    return _register("projection", name, "features, dim, seed")


def reference(name: str) -> Decorator:
    """Register a :class:`coopt_fl.policies.reference.ReferencePolicy`, for ``reference``."""
    return _register("reference", name, "features, wanted, dim, seed")


def assignment(name: str, *, measures_speed: bool = False, by_region: bool = False) -> Decorator:
    """Register a :class:`coopt_fl.policies.assignment.AssignmentPolicy`, for ``assignment.by``.

    Args:
        name: its name in the configuration.
        measures_speed: whether participants measure their speed first.
        by_region: whether each block has images that look alike, and members have ``errors``. The
            policy is then called after the alignments, and the platform first reads every image.
    """
    facts = {"measures_speed": measures_speed, "by_region": by_region}
    return _register("assignment", name, "blocks, members", **facts)


def audit(name: str) -> Decorator:
    """Register ``make(precision: str, private: bool) -> AuditPolicy``, for ``audit.policy``.

    See :class:`coopt_fl.policies.audit.AuditPolicy`.
    """
    return _register("audit", name, "precision, private")


def objective(name: str, *, on_targets: bool) -> Decorator:
    """Register a class ``Kind(student, setting)``, for ``student.objective``.

    ``Kind`` is a subclass of :class:`coopt_fl.students.objectives.Objective`.

    Args:
        name: its name in the configuration.
        on_targets: whether it needs an optimized dataset.
    """
    return _register("objective", name, "student, setting", on_targets=on_targets)


def student(name: str) -> Decorator:
    """Register ``build(name: str, image_size: int) -> nn.Module``, for ``student.model``.

    ``student.model`` is NAME or ``NAME:...``; the function gets the whole text. The module maps
    (B, 3, image_size, image_size) to features (B, width).
    """
    return _register("student", name, "name, image_size")


def tracker(name: str) -> Decorator:
    """Register ``make(folder: Path, settings: dict) -> Tracker``, for ``tracker``.

    See :class:`coopt_fl.students.trackers.Tracker`. The folder may not exist yet; the settings of
    the training have dotted names. When a training continues, all its epochs are logged again.
    """
    return _register("tracker", name, "folder, settings")


def _register(kind: str, name: str, arguments: str, **facts: Any) -> Decorator:
    def register(part: T, /) -> T:
        _require_call(kind, name, part, arguments)
        PARTS.add(Part(kind, name, part, facts, origin=origin(part)))
        return part

    return register


def _require_call(kind: str, name: str, part: Any, arguments: str) -> None:
    """Raise ConfigError unless ``part`` can be called with positional ``arguments``."""
    if not callable(part):
        raise ConfigError(f"the {kind} {name!r} is no function or class: {part!r}")
    try:
        signature = inspect.signature(part, follow_wrapped=False)
    except (ValueError, TypeError, NameError):  # it does not tell, as some of C code
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise ConfigError(
            f"the {kind} {name!r} takes {signature}, but is called with ({arguments}): {error}"
        ) from None
