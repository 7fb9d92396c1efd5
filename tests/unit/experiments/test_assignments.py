"""Who makes which of a crowd's targets."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import assignments
from experiments.assignments import ALONE, by_shards, by_training, crowd_of_specialists
from experiments.lab import Lab
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
CROWD = SCALES["crowd"]["domains"]


def test_domains_go_to_who_was_trained_on_them_with_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    specialists = ("a/dino", "b/dino", "b/labels", "a/labels")
    crowd = ("trivial:24", *(f"trained:specialists-{one}/convnet:4/1" for one in specialists))
    lab = Lab(replace(STUDY, crowd=crowd))
    domain = np.array([*"abc"])[np.arange(320) % 3]
    monkeypatch.setattr(lab, "domains", lambda split: domain)
    agreed = lab.agree(0, {name: lab.features("trivial:24")[0] for name in "vwxyz"})
    parts = by_training(lab, agreed, 0)["groups"].ids
    assert [{*domain[parts[name]]} for name in "vwxyz"] == [{"c"}, set(), set(), {"b"}, {"a"}]
    assert sum(len(rows) for rows in parts.values()) == 320


def test_specialists_are_those_not_from_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[str, ...]]()

    def by_shards(lab: Lab, seed: int, shards: str, consensus: str) -> dict[str, str]:
        seen.append(lab.study.crowd)
        return {}

    monkeypatch.setattr(assignments, "by_shards", by_shards)
    lab = Lab(replace(STUDY, crowd=CROWD.crowd))
    crowd_of_specialists.measure(lab, {"seed": 0, "shards": "equal", "consensus": "gcca"})
    assert {*CROWD.crowd} - {*seen[0]} == {
        "timm:tf_efficientnet_lite0@bundled?size=96",
        "timm:tf_efficientnet_lite1@bundled?size=64",
        "timm:tf_efficientnet_lite2@bundled?size=32",
    }
    assert seen[0][0].startswith("trained:specialists-cifar10/"), (
        "it gets what nobody is trained on"
    )
    assert lab.study.crowd == CROWD.crowd


def test_without_others_three_make_all_targets_and_the_consensus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab, seen = Lab(replace(STUDY, crowd=CROWD.crowd)), dict[str, object]()

    def collaborate(lab: Lab, seed: int, priors: tuple[str, ...], **how: object) -> None:
        seen.update(priors=priors)
        raise NotImplementedError

    domain = np.array(["cifar10", "fashion", "digits"])[np.arange(320) % 3]
    monkeypatch.setattr(Lab, "domains", lambda lab, split: domain)
    monkeypatch.setattr(Lab, "collaborate", collaborate)
    with pytest.raises(NotImplementedError):
        by_shards(lab, 0, ALONE)
    assert seen["priors"] == (CROWD.crowd[0], CROWD.crowd[2], CROWD.crowd[3])
