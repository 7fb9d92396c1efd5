"""Checkpoints of a student: written atomically, read without running any code.

A checkpoint can serve as a prior of the next cycle: ``checkpoint:PATH``.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError, PriorError
from coopt_fl.core.files import atomic, expanded, is_file, is_folder, make_folder
from coopt_fl.core.runtime import channels_last
from coopt_fl.data import Preprocess
from coopt_fl.optimized.public import public_init
from coopt_fl.plugins import OUTSIDE
from coopt_fl.priors.spec import PriorSpec
from coopt_fl.students.images import resizing
from coopt_fl.students.models import Student, build_student

CHECKPOINT = "checkpoint.pt"
"""Name of the file in the folder of a training."""

FORMAT = 2
ANOTHER = "give a checkpoint.pt that `coopt run`, `train` or `pretrain` wrote"
KEYS = {"format", "name", "image_size", "mean", "std", "weights", "meta", "resume"}


@dataclass(frozen=True, repr=False)
class LoadedStudent:
    """A trained student, ready to give features.

    Attributes:
        model: Eval mode, channels_last; maps normalised images (B, 3, s, s) to features.
        preprocess: Resizing, cropping and normalisation of an image, as in training.
        meta: ``data`` and ``student`` (configuration), ``dataset_digest``, ``dim``, ``seed``,
            ``epochs``, ``curve`` (see :class:`coopt_fl.students.curve.Point`), ``hardware``,
            ``versions``, ``license`` (derived from those of the images, priors and weights used).
    """

    model: Student
    preprocess: Preprocess
    meta: dict[str, Any]

    def __repr__(self) -> str:
        size = self.model.image_size
        return f"LoadedStudent({self.model.name}, {size} px, {self.model.width} features)"

    def __post_init__(self) -> None:
        channels_last(self.model.eval())

    @torch.inference_mode()
    def features(self, images: Tensor | list[Tensor]) -> Tensor:
        """Return float32 features (B, width) of uint8 images (B, 3, H, W), on the model's device.

        Images of another size than the student's, which may come as a list, are resized there.
        """
        device = next(self.model.parameters()).device
        ready = self.preprocess(images, device).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.model(ready)).float()


def save_student(path: Path, student: LoadedStudent, resume: dict[str, Any] | None = None) -> None:
    """Write a checkpoint to ``path``, atomically.

    Args:
        path: The file; its folder is created.
        student: Its weights are stored as CPU tensors; its ``meta`` must be plain values.
        resume: The state from which training resumes; None after the last epoch.

    Raises:
        OutputError: The file cannot be written; an older checkpoint stays as it was.
    """
    make_folder(path.parent)
    model = student.model
    content = {
        "format": FORMAT,
        "name": model.name,
        "image_size": model.image_size,
        "mean": student.preprocess.mean,
        "std": student.preprocess.std,
        "weights": {key: value.cpu() for key, value in model.state_dict().items()},
        "meta": student.meta,
        "resume": resume,
    }
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises no OSError
    torch.save(content, buffer)
    with atomic(path) as file:
        file.write(buffer.getbuffer())


def shareable(path: Path) -> bytes | None:
    """Return the checkpoint ``path`` without local paths, or None if training is not finished.

    Raises:
        ConfigError: ``path`` is not a checkpoint.
    """
    content = read_checkpoint(path)
    if content["resume"] is not None:
        return None
    meta = content["meta"]
    buffer = io.BytesIO()
    content["meta"] = meta | {"data": meta["data"] | {"root": None, "shards": None}}
    if "init" in meta.get("student", {}):  # older checkpoints stored the path itself
        init = public_init(meta["student"]["init"])
        content["meta"]["student"] = meta["student"] | {"init": init}
    torch.save(content, buffer)
    return buffer.getvalue()


def load_student(path: str | Path, model: str | None = None) -> LoadedStudent:
    """Read the student from the checkpoint ``path``, whether its training is finished or not.

    Args:
        path: A ``.pt`` file.
        model: The student's ``python:MODULE:FUNCTION``, if it has one: the caller has to name it,
            so that no file can decide which code is imported.

    Raises:
        ConfigError: There is no such file, it is not a checkpoint of a student, its weights do
            not fit the model, or ``model`` is missing.
    """
    path = Path(path)
    content = read_checkpoint(path)
    if content["name"].startswith(OUTSIDE) and content["name"] != model:
        raise ConfigError(
            f"{path} holds a student that a Python function builds: to allow importing that "
            f"function, give student.model={content['name']}"
        )
    student = build_student(content["name"], content["image_size"], seed=0)
    try:
        student.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise ConfigError(
            f"the weights in {path} do not fit {content['name']!r}: it was written with other "
            "versions of torchvision or timm; install those or train it again"
        ) from error
    preprocess = resizing(student.image_size, content["mean"], content["std"])
    return LoadedStudent(student, preprocess, content["meta"])


def read_checkpoint(path: Path, advice: str = ANOTHER) -> dict[str, Any]:
    """Return the content of a checkpoint as plain values and tensors.

    Args:
        path: The file.
        advice: What the error message tells the user to do if it is not a checkpoint.

    Raises:
        ConfigError: There is no such file, or it is not a checkpoint.
    """
    if not is_file(path, ConfigError):
        where = "" if path.parent.is_dir() else f", nor the folder {path.parent}"
        raise ConfigError(
            f"there is no checkpoint {path}{where}; train a student with `coopt train`"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds of errors for a file that it did not write
        content = None
    if not isinstance(content, dict) or set(content) != KEYS or content["format"] != FORMAT:
        raise ConfigError(f"{path} is not a checkpoint of a student; {advice}")
    return content


def checkpoint_file(given: str | Path) -> Path:
    """Return the checkpoint in a run's or a training's directory; a file is returned as given."""
    path = expanded(given)
    if not is_folder(path, ConfigError):
        return path
    return next(path.glob(f"student/{CHECKPOINT}"), path / CHECKPOINT)


def check(spec: PriorSpec) -> None:
    """Raise PriorError unless the file of a prior ``checkpoint:PATH`` exists."""
    if not is_file(Path(spec.name), PriorError):
        raise PriorError(f"there is no file {spec.name}; name one that `coopt train` wrote")


def load(spec: PriorSpec) -> tuple[nn.Module, Preprocess]:
    """Load the student as a prior, with the same features that the probe judges."""
    if read_checkpoint(Path(spec.name))["name"].startswith(OUTSIDE):
        raise PriorError(
            "a student built by python:MODULE:FUNCTION cannot be a prior, because its file would "
            "decide which code is imported: register the function as a plug-in instead "
            "(docs/plugins.md), and train the student under that name"
        )
    student = load_student(Path(spec.name))
    size = spec.size or student.model.image_size
    return student.model, replace(student.preprocess, size=size, resize=size)


def license(spec: PriorSpec) -> str | None:
    """Return the licence derived for the student when it was trained; None if not recorded."""
    stated: str | None = read_checkpoint(Path(spec.name))["meta"].get("license")
    return stated
