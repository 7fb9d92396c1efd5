"""A checkpoint has a single score, whichever command or device computes it."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from coopt_fl import api
from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.data import Preprocess, open_source
from coopt_fl.priors import Prior
from coopt_fl.students.checkpoint import LoadedStudent, load_student, save_student
from coopt_fl.students.images import normalise
from coopt_fl.students.models import ConvNet
from coopt_fl.students.probe import Judge, probe_prior, probe_student, random_student

STUDENT = StudentConfig(model="convnet:4", image_size=12)


@pytest.fixture(params=["one size", "mixed sizes"])
def data(request, tmp_path):
    """Images larger than the student's, in two classes of different texture."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for k in range(40):
            sides = (21, 30) if request.param == "one size" else rng.integers(13, 50, 2)
            noise = rng.integers(0, 140 + 30 * (k % 2), (*sides, 3), dtype=np.uint8)
            path = tmp_path / split / f"class{k % 2}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)
    return DataConfig(source="imagefolder", root=str(tmp_path))


@pytest.fixture
def checkpoint(data, tmp_path):
    student = random_student(STUDENT, data, seed=0)
    save_student(tmp_path / "c.pt", replace(student, meta={"data": asdict(data)}))
    return tmp_path / "c.pt"


def ways(checkpoint, data):
    """Return the ways to compute the score: ``pretrain`` twice, ``probe``, ``run``, untrained."""
    judge = Judge(data)
    return {
        "pretrain": lambda: judge(load_student(checkpoint)).accuracy,
        "its next epoch": lambda: judge(load_student(checkpoint)).accuracy,
        "probe": lambda: api.probe(checkpoint, [])["accuracy"]["lbfgs"],
        "run": lambda: probe_student(load_student(checkpoint), data, limit=10_000),
        "untrained": lambda: probe_student(random_student(STUDENT, data, 0), data),
    }


def test_the_same_tensors_reach_the_model_by_every_way(checkpoint, data, monkeypatch):
    seen, plain = [], ConvNet.forward

    def recorded(model, images):
        seen.append(images.clone())
        return plain(model, images)

    inputs, scores = {}, set()
    for name, way in ways(checkpoint, data).items():
        with monkeypatch.context() as patch:
            patch.setattr(ConvNet, "forward", recorded)
            scores.add(way())
        # one empty image measures the width of a model that is built
        inputs[name] = torch.cat([images for images in seen if images.any()])
        seen.clear()
    assert len(scores) == 1
    assert all(torch.equal(found, inputs["probe"]) for found in inputs.values())
    student, squares = load_student(checkpoint), []
    for split in ("train", "test"):
        source = open_source(data, split)
        squares += [student.preprocess.square(image[None]) for image in source.read(source.ids)]
    normal = normalise(torch.cat(squares) / 255, student.preprocess)
    torch.testing.assert_close(inputs["probe"], normal)


def on_a_device_that_resizes_differently(monkeypatch):
    """Make resizing in a model's call differ from resizing where images are read."""
    within, square = [], Preprocess.square

    def called(preprocess, images, device="cpu", plain=Preprocess.__call__):
        within.append(True)
        try:
            return plain(preprocess, images, device)
        finally:
            within.pop()

    def squared(preprocess, images):
        found = square(preprocess, images)
        resized = within and images.shape[-2:] != found.shape[-2:]
        return 255.0 - found.float() ** 2 / 255 if resized else found

    monkeypatch.setattr(Preprocess, "__call__", called)
    monkeypatch.setattr(Preprocess, "square", squared)


def test_a_device_that_resizes_differently_does_not_change_a_students_score(
    checkpoint, data, monkeypatch
):
    student = load_student(checkpoint)
    source = open_source(data)
    images, features = source.read(source.ids[:4]), LoadedStudent.features
    expected, resized = probe_student(student, data), features(student, images)
    on_a_device_that_resizes_differently(monkeypatch)
    assert not torch.allclose(features(student, images), resized)  # the stand-in is at work
    assert {way() for way in ways(checkpoint, data).values()} == {expected}


def test_a_student_as_a_prior_has_its_score_where_resizing_is_the_same(data):
    student = random_student(STUDENT, data, seed=0)
    prior = Prior(
        "student",
        student.model.width,
        "0" * 64,
        student.preprocess,
        student.model,
        torch.device("cpu"),
    )
    assert probe_prior(prior, data) == Judge(data)(student).accuracy
