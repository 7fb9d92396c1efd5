"""Every study of the large scales is valid, as far as can be checked without data and weights."""

import open_clip
import pytest
import timm
import torch

from coopt_fl.priors import check_prior, hub, parse_prior
from coopt_fl.students.models import check_student
from experiments.scales import SCALES, Study

LARGE = {
    f"{scale} {name}": study for scale in ("gpu", "paper") for name, study in SCALES[scale].items()
}


def width(spec: str) -> int:
    """Return the width of a prior's features, built by its library without weights."""
    prior = parse_prior(spec)
    name = prior.name.split("/")[0].removesuffix("@bundled")
    if prior.scheme == "open_clip":
        return int(open_clip.get_model_config(name)["embed_dim"])
    with torch.device("meta"):
        return int(timm.create_model(name).num_features)


@pytest.fixture(params=list(LARGE.values()), ids=list(LARGE))
def study(request: pytest.FixtureRequest) -> Study:
    return request.param


def test_every_prior_is_known(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answers", lambda url: True)  # weights need not be here
    specs = dict.fromkeys((*study.priors, *study.weak, *study.ladder))
    assert [problem for spec in specs if (problem := check_prior(spec))] == []


@pytest.mark.whole
def test_priors_are_as_wide_as_a_reference_must_be(study: Study) -> None:
    for priors in (study.priors, study.weak, study.ladder):
        assert min(map(width, priors)) >= study.dim
    assert len(study.weak) == len(study.priors)


def test_a_consensus_is_possible(study: Study) -> None:
    assert study.shared >= 2 * study.dim
    assert max(study.sizes) >= 2 * study.dim


def test_ten_cycles_each_with_another_prior(study: Study) -> None:
    assert len(set(study.ladder)) == len(study.ladder) == 10


def test_every_student_is_known(study: Study) -> None:
    for model in {*study.models, study.student.model}:
        check_student(model)
