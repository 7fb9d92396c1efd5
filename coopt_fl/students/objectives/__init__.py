"""The objectives that a student can be trained by: ours, and the baselines."""

import importlib
from collections.abc import Callable

import torch

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.extras import install_hint
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import Objective, Setting

WHERE = {
    "regression": "objective.Regression",
    "simclr": "contrastive.SimCLR",
    "byol": "teachers.BYOL",
    "dino": "teachers.DINO",
    "moco": "contrastive.MoCo",
    "simsiam": "teachers.SimSiam",
    "swav": "contrastive.SwAV",
    "dcl": "contrastive.DCL",
    "instdisc": "contrastive.InstanceDiscrimination",
    "rela": "teachers.ReLA",
}
"""The class of each ``student.objective``. Imported when needed: lightly takes seconds."""

ON_TARGETS = ("regression", "rela")
"""Objectives that need an optimized dataset."""


def find_objective(name: str) -> type[Objective]:
    """Return the class of an objective; importing it may take seconds.

    Raises:
        ConfigError: Its losses and heads are not installed.
    """
    module, _, kind = WHERE[name].partition(".")
    try:
        found = importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"student.objective={name} needs lightly: {install_hint('baselines')}"
        ) from error
    objective: type[Objective] = getattr(found, kind)
    return objective


def make_objective(name: str, student: Student, setting: Setting, seed: int) -> Objective:
    """Return an objective whose heads are initialised by ``seed``.

    Raises:
        ConfigError: See :func:`find_objective`.
    """
    kind: Callable[[Student, Setting], Objective] = find_objective(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return kind(student, setting)


__all__ = ["ON_TARGETS", "WHERE", "Objective", "Setting", "find_objective", "make_objective"]
