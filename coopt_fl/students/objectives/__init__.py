"""The objectives that a student can be trained by: ours, and the baselines."""

from collections.abc import Callable

import torch

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.extras import install_hint
from coopt_fl.registry import PARTS
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Setting


def on_targets(name: str) -> bool:
    """Tell whether an objective needs an optimized dataset."""
    return bool(PARTS.find("objective", name).fact("on_targets"))


def find_objective(name: str) -> type[Objective]:
    """Return the class of an objective; importing it may take seconds.

    Raises:
        ConfigError: There is no such objective, or it needs lightly, which is not installed.
    """
    part = PARTS.find("objective", name)
    try:
        kind: type[Objective] = part.object
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"student.objective={name} needs lightly: {install_hint('baselines')}"
        ) from error
    return kind


def make_objective(name: str, student: Student, setting: Setting, seed: int) -> Objective:
    """Return an objective whose heads are initialised by ``seed``.

    Raises:
        ConfigError: See :func:`find_objective`.
    """
    kind: Callable[[Student, Setting], Objective] = find_objective(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return kind(student, setting)


__all__ = ["Objective", "Setting", "find_objective", "make_objective", "on_targets"]
