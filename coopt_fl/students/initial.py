"""A student before its training: random, or with pretrained weights (``student.init``)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from coopt_fl.config.schema import StudentConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import file_sha256
from coopt_fl.core.seeding import derive_seed
from coopt_fl.optimized.public import public_init
from coopt_fl.priors.prior import license_of, load_prior
from coopt_fl.students.checkpoint import checkpoint_file, read_checkpoint
from coopt_fl.students.models import SMALL_IMAGE, Student, build_student


def initial_student(config: StudentConfig, size: int, seed: int) -> Student:
    """Return the student that a training with ``seed`` starts from, for images of ``size`` pixels.

    Raises:
        ConfigError: It cannot be built, or the weights of ``student.init`` do not fit the model.
        PriorError: There are no such weights.
    """
    student = build_student(config.model, size, derive_seed(seed, "student"))
    if config.init is not None:
        try:
            student.backbone.load_state_dict(_weights(config.init, size))
        except RuntimeError:
            why = (
                f"for images up to {SMALL_IMAGE} pixels the model gets another stem, which only a "
                "checkpoint of a student of that size has: set a larger student.image_size"
                if size <= SMALL_IMAGE
                else "set the student.model and the student.image_size of these weights"
            )
            raise ConfigError(
                f"the weights of student.init={config.init} do not fit "
                f"student.model={config.model} at {size} pixels; {why}"
            ) from None
    return student


def student_settings(config: StudentConfig) -> dict[str, Any]:
    """Return the settings that determine a student, without the precision, as plain values.

    Initial weights are identified by the sha256 of their file, not by its path. Without
    ``student.init`` that key is absent, as in checkpoints written before the key existed.
    """
    known = {key: value for key, value in asdict(config).items() if key != "precision"}
    if config.init is None:
        del known["init"]
    elif (path := checkpoint_file(config.init)).is_file():
        known |= {"init": public_init(config.init), "init_sha256": file_sha256(path)}
    return known


def initial_license(init: str) -> str:
    """Return the licence of the weights that ``student.init`` names; "" if none is stated.

    Raises:
        ConfigError: There is no such checkpoint.
        PriorError: There is no such prior.
    """
    path = checkpoint_file(init)
    if _is_prior(init, path):
        return license_of(init)
    return str(read_checkpoint(path)["meta"].get("license", ""))


def _is_prior(init: str, path: Path) -> bool:
    return ":" in init and not path.exists()


def _weights(init: str, size: int) -> dict[str, Tensor]:
    """Return the weights of a backbone from a checkpoint, or from a prior for ``size`` pixels."""
    path = checkpoint_file(init)
    if _is_prior(init, path):
        sized = init if "?" in init or not init.startswith("timm:") else f"{init}?size={size}"
        return load_prior(sized).model.state_dict()
    weights: dict[str, Tensor] = read_checkpoint(path)["weights"]
    return {key.removeprefix("backbone."): value for key, value in weights.items()}
