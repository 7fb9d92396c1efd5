"""A prior of every kind, on the CPU, with pretrained weights in the cache of downloads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from coopt_fl.data.image import Preprocess
from coopt_fl.given import given
from coopt_fl.priors import Prior, load_prior
from coopt_fl.students.checkpoint import LoadedStudent, save_student
from coopt_fl.students.images import resizing
from coopt_fl.students.models import build_student
from tests.unit.priors.conftest import PutOnHub
from tests.unit.priors.test_open_clip import TINY
from tests.unit.priors.test_pretrained import store_squeezenet

HALF = (0.5, 0.5, 0.5)


def of_timm(folder: Path, put: PutOnHub) -> Prior:
    put("timm/test_vit.r160_in1k", "model.safetensors", timm.create_model("test_vit"))
    return load_prior("timm:test_vit?size=32")


def of_torchvision(folder: Path, put: PutOnHub) -> Prior:
    store_squeezenet(folder)
    return load_prior("torchvision:squeezenet1_1/IMAGENET1K_V1?size=32")


def of_open_clip(folder: Path, put: PutOnHub) -> Prior:
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "clip.pt")
    return load_prior(f"open_clip:tiny-clip/{folder / 'clip.pt'}")


def bundled(folder: Path, put: PutOnHub) -> Prior:
    return load_prior("timm:tf_efficientnet_lite0@bundled?size=32")


def random(folder: Path, put: PutOnHub) -> Prior:
    return load_prior("random:test_resnet?size=32")


def trivial(folder: Path, put: PutOnHub) -> Prior:
    return load_prior("trivial:6")


def module(folder: Path, put: PutOnHub) -> Prior:
    own = Prior.from_module(pooled(), name="own", size=8, mean=HALF, std=HALF)
    with given({own.id.removeprefix("module:"): own}):
        return load_prior(own.id)


def outside(folder: Path, put: PutOnHub) -> Prior:
    return load_prior(f"python:{__name__}:from_outside")


def checkpoint(folder: Path, put: PutOnHub) -> Prior:
    student = LoadedStudent(build_student("convnet:4", 16, 0), resizing(16, HALF, HALF), {})
    save_student(folder / "student.pt", student)
    return load_prior(f"checkpoint:{folder / 'student.pt'}")


def pooled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def from_outside(spec: Any) -> tuple[nn.Module, Preprocess]:
    return pooled(), Preprocess(8, 8, "bilinear", HALF, HALF)


KINDS: list[Callable[[Path, PutOnHub], Prior]] = [
    of_timm,
    of_torchvision,
    of_open_clip,
    bundled,
    random,
    trivial,
    module,
    outside,
    checkpoint,
]
