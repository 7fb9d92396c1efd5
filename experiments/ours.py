"""Tables that the paper has not: fairness of its tables, the platform's decisions, the priors."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from coopt_fl.config.schema import RuntimeConfig
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.runtime import pick_device
from coopt_fl.core.seeding import derive_seed
from coopt_fl.policies.reference import elect
from coopt_fl.students import LoadedStudent, fit_probe, train_student
from coopt_fl.students.images import open_squares
from coopt_fl.students.objectives import WHERE
from coopt_fl.students.probe import random_student
from coopt_fl.students.train import CHECKPOINT
from coopt_fl.targets import uniformity
from experiments.figures import curves, points
from experiments.lab import SPLITS, Lab, Made
from experiments.paper import train
from experiments.scales import Study
from experiments.table import Cell, table


def rates(study: Study) -> list[Cell]:
    """Return a row for each objective, with a third, once and three times the learning rate."""
    tried = [round(factor * study.student.lr, 6) for factor in (1 / 3, 1, 3)]
    return [{"objective": name, "lr": rate} for name in WHERE for rate in tried]


@table(rates)
def learning_rates(lab: Lab, cell: Cell) -> Cell:
    """Whether the one learning rate that all objectives of ``table1_baselines`` share is fair."""
    return train(lab, cell, every=lab.study.student.epochs, lr=cell["lr"])


LONGER = 8
PLAIN = "regression, no augmentation"
LASTING = ("random", "regression", PLAIN, "moco", "dcl", "byol")


@table(lambda study: [{"objective": name} for name in LASTING], curves)
def long_training(lab: Lab, cell: Cell) -> Cell:
    """Does the lead last? Self-supervised learning gains from long training.

    Eight times the epochs of the other tables, for ours and the strongest baselines, with a probe
    for each of the shorter trainings' length.
    """
    epochs, changes = lab.study.student.epochs, {}
    if cell["objective"] == PLAIN:
        cell, changes = cell | {"objective": "regression"}, {"augment": "none"}
    return train(lab, cell, every=epochs, epochs=LONGER * epochs, **changes)


NORMS = ("as built", "of the images")


@table(lambda study: [{"model": m, "batch norm": how} for m in study.models for how in NORMS])
def untrained(lab: Lab, cell: Cell) -> Cell:
    """What the features of ``table3_architectures`` are worth before training.

    As built, batch norm does nothing: its running means are 0, its variances 1. A training never
    sees that network, because its first step normalises by the statistics of the batch.
    """
    config = replace(lab.study.student, model=cell["model"])
    student = random_student(config, lab.study.data, cell["seed"])
    if cell["batch norm"] == "of the images":
        take_statistics(student, lab)
    judged = lab.judge(student)
    return {"accuracy": judged.accuracy, "spread": judged.spread}


@torch.no_grad()
def take_statistics(student: LoadedStudent, lab: Lab) -> None:
    """Give batch norm the mean statistics of the training images, in batches as a training's."""
    for layer in student.model.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = None  # the mean over all batches
            layer.train()
    device, size = pick_device(), lab.study.student.batch_size
    student.model.to(device)
    images = open_squares(lab.source, lab.all, student.image_size, device, "raise")
    order = torch.randperm(len(images.rows), generator=torch.Generator().manual_seed(0))
    for batch, _ in images.batches(images.rows[order[: len(order) // size * size]], size):
        student.features(batch)
    student.model.eval()


ORIGINS = ("other images", "nothing", "these images")


@table(lambda study: [{"trained on": origin} for origin in ORIGINS])
def prior_data(lab: Lab, cell: Cell) -> Cell:
    """What the priors were trained on.

    Three participants each time: priors of another dataset, priors that have seen none, and one
    prior that learned from the very images by SimCLR, without labels (its training is not counted).
    """
    seed = cell["seed"]
    if cell["trained on"] == "these images":
        return lab.student(of_own(lab, seed), seed)
    priors = lab.study.priors if cell["trained on"] == "other images" else lab.study.weak
    return lab.student(lab.collaborate(seed, priors=priors), seed)


def of_own(lab: Lab, seed: int) -> Made:
    """Return the targets of a prior that was trained on the images of the study."""
    config = replace(lab.study.student, objective="simclr")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train_student(None, lab.study.data, config, RuntimeConfig(), out, seed, devices=1)
        return lab.centralize(f"checkpoint:{out / CHECKPOINT}", seed)


@table(lambda study: [{"replicas": r} for r in range(1, len(study.priors) + 1)])
def redundancy(lab: Lab, cell: Cell) -> Cell:
    """Each sample optimized by r participants, averaged after alignment.

    r times the inference; at equal cost compare it with a student that is trained longer.
    """
    return lab.student(lab.collaborate(cell["seed"], replicas=cell["replicas"]), cell["seed"])


def priors(study: Study) -> list[Cell]:
    """Return a row for each prior that a study knows."""
    return [{"prior": spec} for spec in dict.fromkeys((*study.priors, *study.weak, *study.ladder))]


@table(priors, points)
def uniformity_as_judge(lab: Lab, cell: Cell) -> Cell:
    """Does the platform's score rank priors as their probes do?

    The uniformity is that of the features of a shared set; the probe is a linear classifier of all
    features.
    """
    x, z = (lab.features(cell["prior"], split)[0] for split in SPLITS)
    score = uniformity(x[lab.shared(lab.study.shared, cell["seed"])])
    y, w = map(torch.from_numpy, lab.labels())
    probed = fit_probe(torch.from_numpy(x), y, torch.from_numpy(z), w)
    return {"uniformity": score, "accuracy": probed}


DRAWS = 30
SIZES = (8, 10, 13, 16, 25, 64, 260)


@table(lambda study: [{"shared": size} for size in SIZES])
def election(lab: Lab, cell: Cell) -> Cell:
    """Who may be the reference, and is noise ever?

    The platform elects among the study's priors, one that has seen no image, and isotropic noise,
    whose uniformity is the best of all. A cell holds shares of many draws of the shared set.
    """
    seen, size = Counter[str](), cell["shared"]
    sound = {spec: lab.features(spec)[0] for spec in lab.study.priors}
    candidates = sound | {"untrained": lab.features(lab.study.weak[0])[0]}
    width = max(x.shape[1] for x in sound.values())
    for draw in range(DRAWS):
        seed = derive_seed(cell["seed"], "election", draw)
        at = lab.shared(size, seed)
        noise = np.random.default_rng(seed).standard_normal((size, width), np.float32)
        asked = {name: x[at] for name, x in candidates.items()} | {"noise": noise}
        try:
            elected = elect(asked, "best", 1, seed)
        except ParticipantError:
            seen["no reference"] += 1
            continue
        seen.update("sound" if name in sound else name for name in elected.accepted)
        seen["noise elected"] += elected.reference == "noise"
    return {
        "sound accepted": seen["sound"] / len(sound) / DRAWS,
        "untrained accepted": seen["untrained"] / DRAWS,
        "noise accepted": seen["noise"] / DRAWS,
        "noise elected": seen["noise elected"] / DRAWS,
        "no reference": seen["no reference"] / DRAWS,
    }
