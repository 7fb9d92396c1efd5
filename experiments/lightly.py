"""lightly-train itself, with the same images and student, on the same core."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.data import batches
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import own_size, resizing
from coopt_fl.students.initial import initial_student
from coopt_fl.students.models import Student
from experiments.lab import Lab
from experiments.table import Cell, table

THEIR_PRECISION = {"auto": "32-true", "float32": "32-true", "bfloat16": "bf16-mixed"}


class Wrapped(nn.Module):
    """A student with lightly-train's interface for custom models."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def feature_dim(self) -> int:
        """Return the width of the features."""
        return self.student.width

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the features of images as maps (B, width, 1, 1)."""
        return {"features": self.student(x)[:, :, None, None]}

    def forward_pool(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features unchanged: there is nothing to pool."""
        return {"pooled_features": x["features"]}

    def get_model(self) -> nn.Module:
        """Return the model to export."""
        return self.student


@table(lambda study: [{"method": "simclr"}] if study.lightly else [])
def lightly_train(lab: Lab, cell: Cell) -> Cell:
    """Which accuracy does a widely used tool reach in the time of CoOpt?

    Only its self-supervised methods are used, because its teachers for distillation, DINOv2 and
    DINOv3, must be downloaded. Augmentation and learning rate are its defaults, except that crops
    are as large as the images; the number of epochs is the study's. The probe normalises images as
    lightly-train does. Its seconds are those of the whole call, in which it reads the images in
    each epoch, writes checkpoints and exports; ours are those of the epochs.
    """
    config, size = lab.study.student, own_size(lab.source)
    student = initial_student(config, size, cell["seed"])
    train = _theirs()
    with tempfile.TemporaryDirectory() as folder:
        images = _written(lab, Path(folder) / "images")
        wall, busy = time.perf_counter(), time.process_time()
        train(
            out=Path(folder) / "out",
            data=images,
            model=Wrapped(student),
            method=cell["method"],
            epochs=lab.study.lightly,
            batch_size=config.batch_size,
            num_workers=0,  # a worker would use a second core
            accelerator="cpu",
            devices=1,
            precision=THEIR_PRECISION[config.precision],
            seed=cell["seed"],
            transform_args={"image_size": (size, size)},
        )
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        exported = Path(folder) / "out" / "exported_models" / "exported_last.pt"
        student.load_state_dict(torch.load(exported))
    theirs = resizing(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    judged = lab.judge(LoadedStudent(student, theirs, {}))
    return {
        "accuracy": judged.accuracy,
        "spread": judged.spread,
        "epochs": float(lab.study.lightly),
        "training s": wall,
        "epoch cpu s": busy / lab.study.lightly / torch.get_num_threads(),
    }


def _written(lab: Lab, folder: Path) -> Path:
    """Write the images as PNG files, and return their folder."""
    folder.mkdir(parents=True)
    for batch in batches(lab.source, [lab.all], 512, "raise"):
        for id, image in zip(batch.ids.tolist(), batch.images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{id}.png")
    return folder


def _theirs() -> Callable[..., None]:
    """Return ``lightly_train.pretrain``."""
    os.environ.setdefault("LIGHTLY_TRAIN_EVENTS_DISABLED", "1")  # no telemetry
    try:
        from lightly_train import pretrain
    except ModuleNotFoundError as error:
        raise ConfigError(
            "lightly_train needs lightly-train, in an environment of its own: "
            "pip install -e '.[baselines]' lightly-train==0.18.0"
        ) from error
    found: Callable[..., None] = pretrain
    return found
