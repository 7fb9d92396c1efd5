"""What an optimized dataset depends on: the dataset key."""

import dataclasses
import hashlib
import json
from typing import Any

from coopt_fl.config.schema import AssignmentConfig, AuditConfig, Config, DataConfig
from coopt_fl.plugins import outside_parts
from coopt_fl.registry import COLUMNS

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
    if part["assignment"]["partition"] == AssignmentConfig().partition:  # likewise
        del part["assignment"]["partition"]
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
