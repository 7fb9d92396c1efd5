"""Priors that the experiments train themselves: ``trained:IMAGES/HOW/MODEL/EPOCHS`` in a study.

IMAGES names a file of :mod:`experiments.domains`, or is ``train`` for the study's own images; HOW
is an objective without targets, or ``labels``. Checkpoints are cached by all that they depend on,
and trained on first use. ``python -m experiments.specialists --root DIR`` trains all of a scale,
and resumes after an interruption.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from coopt_fl import register
from coopt_fl.config.schema import Config, DataConfig, SplitConfig
from coopt_fl.core.cache import cache_dir, exclusive
from coopt_fl.core.errors import DataError
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.data import open_source, split_labels
from coopt_fl.priors import load_prior
from coopt_fl.registry import PARTS
from coopt_fl.students.augment.published import Published
from coopt_fl.students.models import Student
from coopt_fl.students.objectives.objective import AUGMENTATIONS, Objective, Setting, in_float32
from coopt_fl.students.train import train_student
from experiments.command import Scale, check, run
from experiments.scales import SCALES, Study, studies

TRAINED = "trained"


class Labels(Objective):
    """Supervised training: the cross-entropy of a linear layer, which is dropped afterwards.

    Attributes:
        classes: int64 (N,), the class of each image, counted from 0.
    """

    classes: ClassVar[Tensor]

    def __init__(self, student: Student, setting: Setting) -> None:
        view = AUGMENTATIONS[setting.config.augment]
        super().__init__(student, Published(large=(view,), small=(view,)), setting)
        self.head = nn.Linear(student.width, int(self.classes.max()) + 1)

    def forward(self, views: list[Tensor], rows: Tensor, progress: float) -> Tensor:
        """Return the loss of the one view."""
        scores = self.head(self.student(views[0]))
        wanted = self.classes.to(rows.device)[rows]
        return in_float32(lambda logits: F.cross_entropy(logits, wanted), scores)


def loadable(spec: str, study: Study) -> str:
    """Return a spec that ``load_prior`` can load; a ``trained:`` prior is trained first if needed.

    Other processes that need the same prior wait until it is trained.
    """
    scheme, _, recipe = spec.partition(":")
    if scheme != TRAINED:
        return spec
    images, how, model, epochs = recipe.split("/")
    own = images == "train"
    data = study.data if own else replace(study.data, split=SplitConfig(train=images))
    objective = labelled(data) if how == "labels" else how
    student = replace(study.student, model=model, objective=objective, epochs=int(epochs))
    key = hashlib.sha256(f"{spec} {student} {open_source(data).fingerprint}".encode()).hexdigest()
    folder = cache_dir() / "specialists" / key[:32]
    with exclusive(folder):
        out = folder / "trained"  # train_student's own lock in there refuses instead of waiting
        own_weights = Config(derive_seed(0, "specialist", spec), data, student=student)
        trained = train_student(None, own_weights, out, devices=1)
    return f"checkpoint:{trained.checkpoint}"


def labelled(data: DataConfig) -> str:
    """Return the name of the objective with these labels; register it if it is new.

    Raises:
        DataError: There are no labels.
    """
    labels = split_labels(data, "train")
    if labels is None:
        raise DataError(f"data.source={data.source} has no labels to train a specialist on")
    classes = torch.unique(torch.from_numpy(labels), return_inverse=True)[1]
    name = f"labels-{hashlib.sha256(labels.tobytes()).hexdigest()[:12]}"
    if not PARTS.has("objective", name):
        made = type("Labels", (Labels,), {"classes": classes})
        register.objective(name, on_targets=False)(made)
    return name


def of_crowd(study: Study) -> Sequence[str]:
    """Return the priors of the study's crowd, or its ``priors`` if it has no crowd."""
    return study.crowd or study.priors


def trained_weights(study: Study) -> dict[str, str]:
    """Return the beginning of the sha256 of the weights of each prior of a crowd trained here.

    They are trained anew on each host, which need not give the same bits.
    """
    return {
        spec: load_prior(loadable(spec, study), pick_device()).sha256[:12]
        for spec in of_crowd(study)
        if spec.startswith(f"{TRAINED}:")
    }


def main(
    root: Annotated[
        str | None, typer.Option(help="Folder that experiments.domains wrote to.")
    ] = None,
    scale: Scale = "crowd",
) -> None:
    """Train the missing priors of a scale, and say where each is."""
    check("--scale", [scale], SCALES)
    for study in studies(scale, root).values():
        for spec in of_crowd(study):
            if (here := loadable(spec, study)) != spec:
                typer.echo(f"{spec}: {here}")


if __name__ == "__main__":
    sys.exit(run(main))
