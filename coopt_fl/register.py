"""Decorators by which code from outside adds exchangeable parts, each under a name.

A part has the signature of the shipped ones, and the configuration names it like those. Code is
found by the key ``plugins``, as an installed entry point of the group ``coopt_fl.plugins``, or
because the program that calls :func:`coopt_fl.run` defines it. ``docs/plugins.md`` has an example
of each kind.

All raise a ConfigError for a name that is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from coopt_fl.plugins import origin
from coopt_fl.registry import PARTS, Part

T = TypeVar("T")
Decorator = Callable[[T], T]


def source(
    name: str, *, labels: Callable[..., Any] | None = None, needs_root: bool = False
) -> Decorator[T]:
    """Register ``images(data: DataConfig, split: str) -> Source | None``, for ``data.source``.

    It is called with the split "train" or "test", and returns None where there is no such split;
    :func:`coopt_fl.data.from_arrays` makes a source of arrays.

    Args:
        name: in the configuration.
        labels: (data, split) to int64 (N,) or None; by default those that the source carries.
        needs_root: whether ``data.root`` must be given.
    """
    return _register("source", name, labels=labels, needs_root=needs_root)


def prior(
    name: str,
    *,
    form: str | None = None,
    check: Callable[..., None] | None = None,
    options: Sequence[str] = ("size",),
) -> Decorator[T]:
    """Register ``load(spec: PriorSpec) -> (nn.Module, Preprocess)``, for ``NAME:...``.

    The module maps (B, 3, size, size) to features (B, m).

    Args:
        name: the scheme, which precedes the colon.
        form: how a spec is written, for messages; default: ``NAME:...``.
        check: (spec); raises a PriorError where ``load`` would not work here.
        options: that a spec may have after ``?``, of "size" and "seed".
    """
    facts = {"form": form or f"{name}:...", "check": check, "options": tuple(options)}
    return _register("prior", name, **facts)


def solver(name: str) -> Decorator[T]:
    """Register ``solve(source, target, seed) -> (weight, bias)``, for ``targets.solver``.

    All float64: source (S, m), target (S, n), weight (m, n), bias (n,). Tensors come, on the
    device of the prior; tensors or numpy arrays are returned.
    """
    return _register("solver", name)


def projection(name: str) -> Decorator[T]:
    """Register ``axes(features, dim, seed) -> (m, dim)``, for ``targets.projection``.

    All float64: features (R, m) of the reference, centred; the axes are orthonormal, which the
    platform checks. Tensors and arrays as for :func:`solver`.
    """
    return _register("projection", name)


def reference(name: str) -> Decorator[T]:
    """Register a :class:`coopt_fl.policies.reference.ReferencePolicy`, for ``reference``."""
    return _register("reference", name)


def assignment(name: str, *, measures_speed: bool = False) -> Decorator[T]:
    """Register a :class:`coopt_fl.policies.assignment.AssignmentPolicy`, for ``assignment.by``.

    Args:
        name: in the configuration.
        measures_speed: whether participants measure their speed first.
    """
    return _register("assignment", name, measures_speed=measures_speed)


def audit(name: str) -> Decorator[T]:
    """Register ``make(precision: str, private: bool) -> AuditPolicy``, for ``audit.policy``.

    See :class:`coopt_fl.policies.audit.AuditPolicy`.
    """
    return _register("audit", name)


def objective(name: str, *, on_targets: bool) -> Decorator[T]:
    """Register a class ``Kind(student, setting)``, for ``student.objective``.

    It is a :class:`coopt_fl.students.objectives.Objective`.

    Args:
        name: in the configuration.
        on_targets: whether it needs an optimized dataset.
    """
    return _register("objective", name, on_targets=on_targets)


def student(name: str) -> Decorator[T]:
    """Register ``build(name: str, image_size: int) -> nn.Module``, for ``student.model``.

    ``student.model`` is NAME or ``NAME:...``, which the function is given whole. The module maps
    (B, 3, image_size, image_size) to features (B, width).
    """
    return _register("student", name)


def tracker(name: str) -> Decorator[T]:
    """Register ``make(folder: Path, settings: dict) -> Tracker``, for ``tracker``.

    See :class:`coopt_fl.students.trackers.Tracker`. The folder may not exist; the settings of the
    training are by dotted names. When a training continues, all its epochs are told again.
    """
    return _register("tracker", name)


def _register(kind: str, name: str, **facts: Any) -> Decorator[T]:
    def register(made: T) -> T:
        PARTS.add(Part(kind, name, made, facts, origin=origin(made)))
        return made

    return register
