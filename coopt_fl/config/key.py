"""The dataset key: a digest of everything that an optimized dataset depends on."""

import dataclasses
import hashlib
import json
from typing import Any

from coopt_fl.config.schema import (
    AssignmentConfig,
    AuditConfig,
    Config,
    DataConfig,
    TargetsConfig,
)
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
    """Return the sha256 (hex) of everything that the optimized dataset depends on.

    The ``fingerprint`` of the data represents ``data.root``.
    """
    text = json.dumps({"config": keyed(config), "fingerprint": fingerprint}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(config: Config) -> dict[str, Any]:
    """Return the settings that the dataset key is made of.

    It leaves out where the files are, how they are transported, their licences, and what is trained
    on the result; also ``data.on_error`` and ``data.max_pixels``, which do not change finished
    blocks. The columns and the files of the train split are part of the data's fingerprint. Parts
    from plug-ins are listed with their origin.
    """
    part = dataclasses.asdict(config)
    for elsewhere in NOT_IN_KEY:
        del part[elsewhere]
    for elsewhere in ("root", "on_error", "max_pixels", "shards", "license", *COLUMNS):
        del part["data"][elsewhere]
    for participant in part["participants"]:
        del participant["license"]
    del part["optimize"]["chunk_mb"]
    # These keys were added later: at their defaults, the digest must stay what it was before.
    if part["data"]["decode"] == DataConfig().decode:
        del part["data"]["decode"]
    if part["audit"]["policy"] == AuditConfig().policy:
        del part["audit"]["policy"]
    if part["assignment"]["partition"] == AssignmentConfig().partition:
        del part["assignment"]["partition"]
    if part["assignment"]["most"] == AssignmentConfig().most:
        del part["assignment"]["most"]
    if part["targets"]["consensus"] == TargetsConfig().consensus:
        del part["targets"]["consensus"]
    if outside := plugins_used(config):
        part["plugins"] = outside
    return part


def plugins_used(config: Config) -> dict[str, str]:
    """Return the parts from outside that the dataset depends on, each with its origin.

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
    """Return the origins of the student and the objective that come from outside, if any."""
    student = config.student
    return outside_parts({"student": [student.model], "objective": [student.objective]})
