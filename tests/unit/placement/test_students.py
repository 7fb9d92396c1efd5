"""Augmentation, every objective and the probe's encoding on a GPU.

See :mod:`tests.unit.placement.gpu`.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coopt_fl.config.schema import StudentConfig
from coopt_fl.registry import PARTS
from coopt_fl.students.augment import published
from coopt_fl.students.augment.published import Published
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import resizing
from coopt_fl.students.loop import _lookup, augmented, make_optimizer
from coopt_fl.students.models import build_student
from coopt_fl.students.objectives import Objective, Setting, make_objective
from coopt_fl.targets import Encoded, whitening
from coopt_fl.targets.optimize import encode
from tests.unit.placement.gpu import (
    CPU,
    GPU,
    META,
    Forgetful,
    Forgotten,
    Guessed,
    first_tensor,
    moved,
    pretended,
)

SAMPLES, BATCH, DIM, SIZE = 64, 4, 6, 16
PREPROCESS = resizing(SIZE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
PAPERS = [name for name, one in vars(published).items() if isinstance(one, Published)]


def images(device: torch.device, size: int = SIZE) -> Tensor:
    return torch.empty(BATCH, 3, size, size, dtype=torch.uint8, device=device)


def rows(device: torch.device) -> Tensor:
    return torch.empty(BATCH, dtype=torch.int64, device=device)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("paper", PAPERS)
def test_augmentation(paper: str, size: int) -> None:
    views = getattr(published, paper).at(size)
    how = views, range(len(views)), PREPROCESS
    with pretended():
        batch, there, here = images(GPU, size), rows(GPU), rows(CPU)
        assert {view.device for view in augmented(batch, there, *how)} == {GPU}
        with pytest.raises(Forgotten):
            augmented(batch, here, *how)
        with Forgetful(), pytest.raises(Forgotten):
            augmented(batch, there, *how)


def test_targets_are_looked_up_there() -> None:
    targets = np.zeros((SAMPLES, DIM), np.float16)
    with pretended():
        there = rows(GPU)
        assert _lookup(targets, False, GPU)(there).device == GPU
        with Forgetful():
            left = _lookup(targets, False, GPU)
        with pytest.raises(Forgotten):
            assert left(there).device == GPU


def test_whitening_is_fitted_there(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = np.zeros((SAMPLES, DIM), np.float16)
    monkeypatch.setattr(whitening, "as_matrix", lambda part, what: part.double())  # or it waits
    monkeypatch.setattr(whitening, "to_alignment", lambda *fitted: fitted[0].device)
    with pretended():
        assert whitening.fit_whitening(targets, GPU) == GPU
        with Forgetful():
            assert whitening.fit_whitening(targets, GPU) != GPU


def objective(name: str) -> Objective:
    """Return an objective on the CPU, whose targets are on the device of the rows."""
    name, _, later = name.partition(", ")
    setting = Setting(
        samples=SAMPLES,
        config=StudentConfig(objective=name),
        dim=DIM,
        targets=lambda rows: torch.zeros(len(rows), DIM, device=rows.device),
    )
    made = make_objective(name, build_student("convnet:4", SIZE, 0), setting, seed=0)
    if later:
        made.set_extra_state({"steps": 0, "first": False})
    return made


def views_of(made: Objective, device: torch.device) -> list[Tensor]:
    sides = [round(view.size * SIZE) for view in made.views]
    return [torch.empty(BATCH, 3, side, side, device=device) for side in sides]


ON_CPU = {"criterion.teacher_temp_schedule", "criterion.memory_bank.bank_ptr"}
"""Tensors that stay on the CPU: DINOLoss's schedule, which is not used, and MoCo's pointer."""

OBJECTIVES = [*PARTS.shipped("objective"), "rela, later"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_forward_of_an_objective(name: str, dtype: torch.dtype) -> None:
    made = objective(name)
    left = first_tensor(made)
    with pretended(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        batch = views_of(made, GPU), rows(GPU), 0.5
        assert moved(made)(*batch).device == GPU
        with pytest.raises(Forgotten):
            moved(made, but=left)(*batch)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_step_of_an_objective(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    made = objective(name).to(META)
    optimizer = make_optimizer(made, lr=1e-3, weight_decay=0.01)
    for group in optimizer.param_groups:
        group["fused"] = False  # "meta" has no kernel for all weights at once either
    for _ in range(2):
        with Guessed():
            loss = made(views_of(made, META), rows(META), 0.5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(0.5)
    assert left_behind(made, optimizer) == []
    made.student.register_buffer("forgotten", torch.zeros(1))
    assert left_behind(made, optimizer) == ["student.forgotten"]


def left_behind(made: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of tensors of an objective and its optimizer that are not on "meta"."""
    held = dict(made.named_parameters()) | dict(made.named_buffers())
    for module, part in made.named_modules():
        own = {name: one for name, one in vars(part).items() if isinstance(one, Tensor)}
        held |= {f"{module}.{name}": one for name, one in own.items()}
    for index, state in enumerate(optimizer.state.values()):
        held |= {f"optimizer {index} {name}": one for name, one in state.items() if name != "step"}
    return [name for name, one in held.items() if one.device != META and name not in ON_CPU]


def test_the_probe_encodes_there() -> None:
    student = LoadedStudent(build_student("convnet:4", SIZE, 0), PREPROCESS, {})
    width, left = student.model.width, first_tensor(student.model)

    def encoded() -> Encoded:
        rows = torch.arange(BATCH, device=GPU)
        return encode(student.features, [(rows, images(CPU), ())], BATCH, values)

    with pretended():
        moved(student.model)
        values = torch.empty(BATCH, width, device=GPU)
        assert encoded().values.shape == (BATCH, width)
        with Forgetful(), pytest.raises(Forgotten):
            encoded()
        moved(student.model, but=left)
        with pytest.raises(Forgotten):
            encoded()
