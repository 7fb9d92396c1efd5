"""Each loss compared with a slow implementation of the paper's formula, on its own outputs."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from coopt_fl.registry import PARTS
from coopt_fl.students.models import build_student
from coopt_fl.students.objectives import Setting, make_objective
from coopt_fl.students.objectives.contrastive import FROZEN

BATCH, SAMPLES, DIM, SIZE = 6, 40, 5, 12
LARGE, LOCAL = 70, 30  # the smallest whole sides of global and local views: 96 / 224 of it
ROWS = torch.tensor([3, 0, 17, 39, 8, 21])
TARGETS = torch.randn(SAMPLES, DIM, generator=torch.Generator().manual_seed(5))


def made(name, image_size=SIZE, **setting):
    setting = Setting(samples=SAMPLES, dim=DIM, targets=lambda rows: TARGETS[rows], **setting)
    objective = make_objective(
        name, build_student("convnet:4", image_size, seed=1), setting, seed=2
    )
    return objective.train()


def views_of(objective, seed=0):
    generator = torch.Generator().manual_seed(seed)
    side = objective.student.image_size
    sizes = [round(view.size * side) for view in objective.views]
    return [torch.randn(BATCH, 3, size, size, generator=generator) for size in sizes]


def unit(values):
    values = values.detach().double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def log_softmax(values, axis=-1):
    shifted = values - values.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def cross_cosine(ones, others):
    return -np.mean([o @ t for o, t in zip(ones, others, strict=True)])


def simclr(objective, views):
    z = np.concatenate([unit(objective.head(objective.student(view))) for view in views])
    terms = []
    for i in range(2 * BATCH):
        partner = (i + BATCH) % (2 * BATCH)
        others = [z[i] @ z[j] / 0.5 for j in range(2 * BATCH) if j != i]
        terms.append(-z[i] @ z[partner] / 0.5 + math.log(sum(map(math.exp, others))))
    return np.mean(terms)


def dcl(objective, views):
    z = [unit(objective.head(objective.student(view))) for view in views]
    terms = []
    for own, other in (z, z[::-1]):
        for i in range(BATCH):
            negatives = [one[j] for j in range(BATCH) if j != i for one in (own, other)]
            total = sum(math.exp(own[i] @ negative / 0.07) for negative in negatives)
            terms.append(-own[i] @ other[i] / 0.07 + math.log(total))
    return np.mean(terms)


def moco(objective, views):
    """Both directions use the queue before the batch: no key of the batch is a negative."""
    queries = [unit(objective.head(objective.student(view))) for view in views]
    keys = [unit(objective.teacher(view)) for view in reversed(views)]
    queue = objective.criterion.memory_bank.bank.double().numpy()
    terms = []
    for query, key in zip(queries, keys, strict=True):
        for q, k in zip(query, key, strict=True):
            terms.append(-log_softmax(np.array([q @ k, *(queue @ q)]) / 0.1)[0])
    return np.mean(terms)


def instdisc(objective, views):
    v = unit(objective.head(objective.student(views[0])))
    scores = v @ objective.bank.double().numpy().T / 0.1
    return -np.mean([log_softmax(scores)[i, row] for i, row in enumerate(ROWS.tolist())])


def byol(objective, views):
    said = [unit(objective.predictor(objective.head(objective.student(view)))) for view in views]
    taught = [unit(objective.teacher(view)) for view in views]
    return (cross_cosine(said[0], taught[1]) + cross_cosine(said[1], taught[0])) / 2


def simsiam(objective, views):
    z = [objective.head(objective.student(view)) for view in views]
    p = [unit(objective.predictor(one)) for one in z]
    return (cross_cosine(p[0], unit(z[1])) + cross_cosine(p[1], unit(z[0]))) / 2


def dino(objective, views):
    """The teacher's temperature is 0.04, the student's 0.1; the centre starts at 0."""
    taught = [objective.teacher(view).double().numpy() / 0.04 for view in views[:2]]
    said = [
        objective.head(objective.student(view)).detach().double().numpy() / 0.1 for view in views
    ]
    terms = [
        -(np.exp(log_softmax(t)) * log_softmax(s)).sum(1).mean()
        for i, t in enumerate(taught)
        for j, s in enumerate(said)
        if i != j
    ]
    return np.mean(terms)


def swav(objective, views):
    """From 7.5% of the steps on, the queue is assigned to prototypes together with the batch."""
    prototypes = objective.prototypes.heads[0]
    scores = []
    for view in views:
        z = torch.nn.functional.normalize(objective.head(objective.student(view)))
        scores.append(prototypes(z).detach().double().numpy())
    terms = []
    for i in range(2):
        queued = prototypes(objective.queue[:, i]).detach().double().numpy()
        q = np.exp(np.concatenate([scores[i], queued]) / 0.05)
        for _ in range(3):
            q = q / q.sum(0, keepdims=True)
            q = q / q.sum(1, keepdims=True)
        for j, other in enumerate(scores):
            if i != j:
                terms.append(-(q[:BATCH] * log_softmax(other / 0.1)).sum(1).mean())
    return np.mean(terms)


def rela(objective, views):
    targets = unit(TARGETS[ROWS])
    outputs = [unit(objective.transfer(objective.student(view))) for view in views]
    return np.mean([1 + cross_cosine(output, targets) for output in outputs])


def regression(objective, views):
    (head,) = objective.heads
    return 1 + cross_cosine(unit(head(objective.student(views[0]))), unit(TARGETS[ROWS]))


FORMULAS = {
    f.__name__: f
    for f in (simclr, dcl, moco, instdisc, byol, simsiam, dino, swav, rela, regression)
}


def test_every_objective_has_a_formula():
    assert FORMULAS.keys() == set(PARTS.names("objective"))


def move_teacher(objective):
    """Make a teacher differ from its student."""
    for parameter in objective.parameters():
        if not parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(3)
            )


@pytest.mark.parametrize("name", FORMULAS)
def test_the_loss_is_the_papers(name):
    objective = made(name)
    move_teacher(objective)
    views = views_of(objective)
    expected = FORMULAS[name](deepcopy_of(objective), views)
    assert objective(views, ROWS, 0.5).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def sides_into(module):
    """Return a list that records the side of every batch that ``module`` gets."""
    sides = []
    module.register_forward_pre_hook(lambda _, given: sides.append(given[0].shape[-1]))
    return sides


@pytest.mark.whole
@pytest.mark.parametrize(("name", "local"), [("dino", 8), ("swav", 6)])
def test_with_local_views_the_loss_is_the_mean_over_pairs_of_a_global_view_and_any_other(
    name, local
):
    objective = made(name, LARGE)
    move_teacher(objective)
    views, same = views_of(objective), deepcopy_of(objective)
    expected, without = (FORMULAS[name](same, some) for some in (views, views[:2]))
    seen = sides_into(objective.student)
    taught = sides_into(objective.teacher) if name == "dino" else [LARGE, LARGE]
    assert objective(views, ROWS, 0.5).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert expected != pytest.approx(without, rel=1e-3)  # else local views might be left out
    assert seen == [LARGE] * 2 + [LOCAL] * local
    assert taught == [LARGE] * 2


def test_each_part_of_a_target_has_its_own_head_and_as_much_weight():
    objective = made("regression", parts=(2, 3))
    views = views_of(objective)
    features = objective.student(views[0])
    first, second = (unit(head(features)) for head in objective.heads)
    wanted = unit(TARGETS[ROWS, :2]), unit(TARGETS[ROWS, 2:])
    expected = 1 + (cross_cosine(first, wanted[0]) + cross_cosine(second, wanted[1])) / 2
    assert objective(views, ROWS, 0.5).item() == pytest.approx(expected, rel=1e-4)
    weights = [set(map(id, head.parameters())) for head in objective.heads]
    assert len(weights) == 2 and weights[0].isdisjoint(weights[1])


def stopped(view, *modules):
    """Return the modules' output for a view, without gradient."""
    outputs = nn.Sequential(*deepcopy(modules))(view)
    return torch.from_numpy(unit(outputs)).float()


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_the_gradient_stops_at_the_other_view(name):
    objective, same = made(name), made(name)
    views = views_of(objective)
    torch.autograd.backward(objective(views, ROWS, 0.5))
    teacher = (same.teacher,) if name == "byol" else (same.student, same.head)
    taught = [stopped(view, *teacher) for view in reversed(views)]
    said = [same.predictor(same.head(same.student(view))) for view in views]
    cosines = [
        (s / s.norm(dim=1, keepdim=True) * t).sum(1) for s, t in zip(said, taught, strict=True)
    ]
    torch.autograd.backward(-torch.cat(cosines).mean())
    wanted = dict(same.named_parameters())
    for where, parameter in objective.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[where].grad, rtol=1e-3, atol=1e-6)


def test_mocos_queue_takes_in_the_teachers_outputs():
    objective, views = made("moco"), views_of(made("moco"))
    before = objective.criterion.memory_bank.bank.clone()
    keys = np.concatenate([unit(deepcopy_of(objective).teacher(view)) for view in reversed(views)])
    objective(views, ROWS, 0.5)
    objective.after_step(0.5)
    bank = objective.criterion.memory_bank.bank
    assert bank[: 2 * BATCH].numpy() == pytest.approx(keys, abs=1e-5)
    assert torch.equal(bank[2 * BATCH :], before[2 * BATCH :])


def test_dinos_centre_follows_the_mean_of_the_teachers_outputs():
    objective = made("dino")
    views, centre = views_of(objective), 0.0
    mean = np.mean([objective.teacher(view).double().numpy() for view in views[:2]], axis=(0, 1))
    for _ in range(2):
        objective(views, ROWS, 0.5)
        centre = 0.9 * centre + 0.1 * mean
        assert objective.criterion.center.flatten().numpy() == pytest.approx(centre, abs=1e-6)


def deepcopy_of(objective):
    """Return a copy for the formula, because a forward pass in train mode changes statistics."""
    name = next(one.name for one in PARTS.parts("objective") if one.object is type(objective))
    other = made(name, objective.student.image_size)
    other.load_state_dict(deepcopy(objective.state_dict()))
    return other


@pytest.mark.parametrize(("name", "momentum"), [("byol", 0.99), ("moco", 0.99), ("dino", 0.99)])
def test_the_teacher_is_a_moving_average(name, momentum):
    objective = made(name)
    followed = [objective.student, objective.head]
    before = [p.clone() for p in objective.teacher.parameters()]
    for module in followed:
        for parameter in module.parameters():
            parameter.data += 0.1
    objective.after_step(0.5)
    if name != "moco":  # rises to 1 along a half cosine: at half of the steps, half of the way
        momentum = 1 - (1 - momentum) / 2
    originals = [p for module in followed for p in module.parameters()]
    for was, original, now in zip(before, originals, objective.teacher.parameters(), strict=True):
        torch.testing.assert_close(now, momentum * was + (1 - momentum) * original.detach())


def test_the_bank_moves_halfway_to_the_outputs():
    objective = made("instdisc")
    before = objective.bank.clone()
    views = views_of(objective)
    output = unit(objective.head(objective.student(views[0])))
    objective(views, ROWS, 0.0)
    assert torch.equal(objective.bank, before)
    objective.after_step(0.0)
    moved = unit(torch.from_numpy((before[ROWS].numpy() + output) / 2))
    assert objective.bank[ROWS].numpy() == pytest.approx(moved, abs=1e-5)
    others = np.setdiff1d(np.arange(SAMPLES), ROWS)
    assert torch.equal(objective.bank[others], before[others])


@pytest.mark.parametrize("name", PARTS.names("objective"))
def test_gradients_reach_the_student_but_no_teacher(name):
    objective = made(name)
    torch.autograd.backward(objective(views_of(objective), ROWS, 0.5))
    assert all(p.grad is not None and p.grad.any() for p in objective.student.parameters())
    assert all(p.grad is None for p in objective.parameters() if not p.requires_grad)


@pytest.mark.parametrize("name", PARTS.names("objective"))
def test_all_that_is_needed_to_go_on_is_state(name):
    one, other = made(name), made(name)
    views = views_of(one)
    for _ in range(3):
        torch.autograd.backward(one(views, ROWS, 0.2))
        one.after_step(0.2)
    other.load_state_dict(deepcopy(one.state_dict()))
    assert other(views, ROWS, 0.3).item() == one(views, ROWS, 0.3).item()


@pytest.mark.whole
def test_rela_goes_on_to_byol_when_its_loss_stands_still():
    """With the loss at 0, the averages come within -log 0.995 after about 3,100 steps."""
    objective = made("rela")
    first = objective.views
    fast, slow, steps = 1.0, 2.0, 0
    while math.exp(-max(slow - fast, 0)) < 0.995:
        fast = fast * 0.999
        slow = slow * 0.99 + fast * 0.01
        steps += 1
    for step in range(steps + 1 + 32):
        if objective.views is first:
            assert step <= steps + 32
            objective._watch(torch.zeros(()))
            objective.after_step(0.0)
            assert step >= steps - 1 or objective.views is first
    assert objective.views == made("byol").views
    views = views_of(objective)
    same = made("byol")
    kept = {k: v for k, v in objective.state_dict().items() if k in same.state_dict()}
    same.load_state_dict(kept)
    assert objective(views, ROWS, 0.5).item() == pytest.approx(same(views, ROWS, 0.5).item())
    resumed = made("rela")
    resumed.load_state_dict(deepcopy(objective.state_dict()))
    assert resumed.views == objective.views


def test_local_views_are_of_full_size_for_a_model_that_takes_no_other():
    setting = Setting(samples=SAMPLES)
    large = made("swav", image_size=96)
    assert min(view.size for view in large.views) < 1
    name = "timm:vit_tiny_patch16_224"
    vit = make_objective("swav", build_student(name, 96, seed=0), setting, seed=0)
    assert {view.size for view in vit.views} == {1.0}
    assert len(vit.views) == len(large.views)


def test_swavs_queue_holds_the_last_outputs_and_waits_for_its_turn():
    objective = made("swav")
    views, before = views_of(objective), objective.queue.clone()
    early = objective(views, ROWS, 0.07).item()
    outputs = [unit(deepcopy_of(objective).head(objective.student(view))) for view in views]
    objective.after_step(0.07)
    held = len(before)
    assert held == SAMPLES // 8
    assert objective.queue.numpy() == pytest.approx(np.stack(outputs, 1)[:held], abs=1e-5)
    objective.queue.copy_(before)
    assert objective(views, ROWS, 0.08).item() != pytest.approx(early, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "weights", "until"),
    [
        ("swav", lambda objective: objective.prototypes.heads[0].weight, FROZEN),
        ("dino", lambda objective: objective.head.last_layer.weight_v, 0.01),
    ],
)
def test_the_last_layer_stands_still_at_first(name, weights, until):
    objective = made(name)
    for progress, moves in ((0.0, False), (0.99 * until, False), (until, True)):
        objective.zero_grad()
        objective(views_of(objective), ROWS, progress).backward()
        assert (weights(objective).grad is not None) == moves


def test_dcl_instdisc_and_moco_have_other_settings_for_large_images():
    assert made("instdisc", 96).temperature == 0.07
    assert (made("moco", 96).momentum, made("moco", 96).criterion.temperature) == (0.999, 0.2)
    assert made("simclr", 96).criterion.temperature == made("dcl", 96).criterion.temperature == 0.1


def test_simsiam_projects_with_three_layers_or_with_two_for_small_images():
    def depth(size):
        layers = made("simsiam", size).head.modules()
        return sum(isinstance(layer, torch.nn.Linear) for layer in layers)

    assert (depth(96), depth(32)) == (3, 2)
