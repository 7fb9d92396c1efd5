"""What a student is before its training: random, or with pretrained weights (``student.init``)."""

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
    """Return the student that a training with ``seed`` starts from.

    Raises:
        ConfigError: It cannot be built, or the weights of ``student.init`` are of another model.
        PriorError: There are no such weights.
    """
    student = build_student(config.model, size, derive_seed(seed, "student"))
    if config.init is not None:
        try:
            student.backbone.load_state_dict(_weights(config.init, size))
        except RuntimeError:
            why = (
                f"up to {SMALL_IMAGE} pixels a student has a stem of its own, unless it is from a "
                "checkpoint of that size: set a larger student.image_size"
                if size <= SMALL_IMAGE
                else "set the student.model and the student.image_size that they are of"
            )
            raise ConfigError(
                f"the weights of student.init={config.init} do not fit "
                f"student.model={config.model} at {size} pixels; {why}"
            ) from None
    return student


def student_settings(config: StudentConfig) -> dict[str, Any]:
    """Return what a student depends on, but for the precision, as plain values.

    The weights that it begins with are known by the sha256 of their file, wherever that lies.
    Students without such lack that key, as those have that were trained before it existed.
    """
    known = {key: value for key, value in asdict(config).items() if key != "precision"}
    if config.init is None:
        del known["init"]
    elif (path := checkpoint_file(config.init)).is_file():
        known |= {"init": public_init(config.init), "init_sha256": file_sha256(path)}
    return known


def initial_license(init: str) -> str:
    """Return the licence of the weights that ``student.init`` names; "" where none is stated.

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
    """Return the weights of a backbone: from a checkpoint, or of a prior for ``size`` pixels."""
    path = checkpoint_file(init)
    if _is_prior(init, path):
        sized = init if "?" in init or not init.startswith("timm:") else f"{init}?size={size}"
        return load_prior(sized).model.state_dict()
    weights: dict[str, Tensor] = read_checkpoint(path)["weights"]
    return {key.removeprefix("backbone."): value for key, value in weights.items()}
