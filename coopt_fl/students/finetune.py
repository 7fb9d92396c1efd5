"""Fine-tuning: training all weights of a student, and a linear layer on top, on labels.

The linear layer starts from the linear probe and its standardisation, because a random one would
distort the features before it has learned anything (Kumar et al. 2022, arXiv:2202.10054).
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coopt_fl.core.runtime import pick_device, tensor_cores
from coopt_fl.core.seeding import derive_seed
from coopt_fl.students.augment.view import View
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.classifier import LinearClassifier
from coopt_fl.students.images import Squares, normalise
from coopt_fl.students.loop import augmented, make_optimizer, set_rate
from coopt_fl.students.objectives.objective import AUGMENTATIONS
from coopt_fl.students.probe import BATCH, FEWER
from coopt_fl.students.session import enough_memory

Marked = tuple[Squares, Tensor]
"""The images of a split, and their int64 labels, indexed by the images' rows."""

ROWS = 64
"""Batch size."""

RATE, DECAY = 1e-3, 0.05
"""Peak learning rate and weight decay of AdamW."""

EPSILON = 1e-5
"""Added to the variance of a feature, which may be 0, relative to the mean variance."""


def fine_tuned(
    student: LoadedStudent,
    probe: LinearClassifier,
    train: Marked,
    test: Marked,
    epochs: int,
    told: Callable[[int, float], None],
) -> float:
    """Fine-tune a copy of ``student`` on the train split and return its test accuracy in [0, 1].

    Args:
        student: The student; its own weights are not changed.
        probe: A linear classifier of its features, from which the head starts.
        train: The train split.
        test: The test split.
        epochs: Passes over the train split, augmented as the student's training was.
        told: Called after each epoch with its number, from 1, and the mean loss.
    """
    device = pick_device()
    model = nn.Sequential(copy.deepcopy(student.model), head_of(probe)).to(device)
    view = AUGMENTATIONS[student.meta.get("student", {}).get("augment", "crop_flip")]
    with (
        enough_memory("fine-tune the student", FEWER),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        tensor_cores(device),
    ):
        torch.manual_seed(derive_seed(0, "fine-tuning"))  # for dropout
        squares, labels = train
        places = torch.searchsorted(probe.classes, labels.to(probe.classes))
        _train(model, student, (squares, places.to(device)), view, epochs, told)
        return _accuracy(model, student, test, probe.classes.to(device))


def head_of(probe: LinearClassifier) -> nn.Module:
    """Return batch norm and a linear layer that, in eval mode, give the probe's scores."""
    classes, width = probe.weight.shape
    scale = float(probe.std.square().mean())
    norm = nn.BatchNorm1d(width, eps=EPSILON * scale, affine=False)
    layer = nn.Linear(width, classes)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(probe.mean)
        norm.running_var.copy_(probe.std.square())
        layer.weight.copy_(probe.weight)
        layer.bias.copy_(probe.bias)
    return nn.Sequential(norm, layer)


def _train(
    model: nn.Module,
    student: LoadedStudent,
    train: Marked,
    view: View,
    epochs: int,
    told: Callable[[int, float], None],
) -> None:
    """Train in place; a last batch of one image is dropped, because batch norm needs two."""
    optimizer, (squares, classes) = make_optimizer(model, RATE, DECAY), train
    full, rest = divmod(len(squares.rows), ROWS)
    steps = full + (rest > 1)
    model.train()
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(derive_seed(0, "fine-tuning", epoch))
        order = squares.rows[torch.randperm(len(squares.rows), generator=generator)]
        total, seed = torch.zeros((), device=classes.device), derive_seed(0, "views", epoch)
        parts = (part for part in squares.batches(order, ROWS) if len(part[1]) > 1)
        for step, (images, rows) in enumerate(parts, start=epoch * steps):
            (ready,) = augmented(images, rows, [view], [seed], student.preprocess)
            set_rate(optimizer, step, epochs * steps, RATE)
            loss = F.cross_entropy(model(ready), classes[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach()
        told(epoch + 1, float(total) / max(1, steps))


@torch.inference_mode()
def _accuracy(model: nn.Module, student: LoadedStudent, test: Marked, classes: Tensor) -> float:
    """Return the share of the test images that the model classifies correctly."""
    model.eval()
    squares, labels = test[0], test[1].to(classes.device)
    right = [
        classes[model(normalise(images.float() / 255, student.preprocess)).argmax(1)]
        == labels[rows]
        for images, rows in squares.batches(squares.rows, BATCH[classes.device.type])
    ]
    return float(torch.cat(right).double().mean())
