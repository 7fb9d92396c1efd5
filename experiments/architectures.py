"""Longer trainings of every architecture: CoOpt against a baseline at the same number of steps."""

from torch import nn

from experiments.lab import Lab
from experiments.paper import train
from experiments.scales import Study
from experiments.table import Cell, table
from experiments.untrained import untrained_student

RATE = 1e-3
"""Learning rate: low enough for every architecture."""

BASELINE = "dcl"

AS_BUILT = "random, as built"

GRID = 4
"""The transformer's patches along one side: a CPU core can train with 16 patches, not with 64."""

OWN = {"vit_tiny": f"python:{__name__}:vit_tiny"}
"""Models that no library has for images as small as these."""


def vit_tiny(name: str, size: int) -> nn.Module:
    """Return timm's vit_tiny_patch16_224 without classifier, with 4x4 patches at any image size."""
    import timm

    patch = size // GRID
    return timm.create_model("vit_tiny_patch16_224", img_size=size, patch_size=patch, num_classes=0)


def _rows(study: Study) -> list[Cell]:
    return [
        {"model": model, "image_size": side, "epochs": epochs, "objective": objective}
        for model, side, epochs in study.trained
        for objective in ("random", AS_BUILT, "regression", BASELINE)
    ]


@table(_rows)
def table3_long(lab: Lab, cell: Cell) -> Cell:
    """One optimized dataset for every architecture, against a baseline with the same architecture.

    The baseline is the one that is best for small convnets. Both take the same number of steps with
    the same learning rate. The random backbone has the batch norm statistics of the images, as
    after a training's first steps; as built, batch norm does nothing. Image sizes and epochs are
    chosen so that the baseline, whose step costs more than twice as much, takes about twenty
    minutes on a CPU core.
    """
    changes = {
        "model": OWN.get(cell["model"], cell["model"]),
        "image_size": cell["image_size"],
        "epochs": cell["epochs"],
    }
    if cell["objective"] not in ("random", AS_BUILT):
        return train(lab, cell, every=cell["epochs"], lr=RATE, **changes)
    adapted = cell["objective"] != AS_BUILT
    student = untrained_student(lab, cell["seed"], adapted=adapted, **changes)
    return dict(vars(lab.judge(student)))
