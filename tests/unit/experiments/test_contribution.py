"""Crowds without one prior, or with weak ones, and remedies."""

from dataclasses import replace

import pytest

from experiments import contribution
from experiments.contribution import crews, without_accused
from experiments.lab import Lab
from experiments.played import before_audit
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
CROWD = SCALES["crowd"]["domains"]


def test_crowds_lose_one_each_or_have_ever_more_weak_ones() -> None:
    found = crews(CROWD)
    assert len(CROWD.crowd) == 10 and CROWD.crowd[-2:] == CROWD.weak[:2]
    assert CROWD.probe is None, "or else a probe's rows are not those of the domains"
    for spec in CROWD.crowd:
        assert {*CROWD.crowd} - {*found[f"without {spec}"]} == {spec}
    for weak in (2, 4, 6, 8):
        crew, alone = found[f"{weak} of 10 weak"], found[f"{10 - weak} sound alone"]
        assert len({*crew}) == 10 and sum(spec in CROWD.weak for spec in crew) == weak
        assert {*alone} == {*crew} - {*CROWD.weak}
    assert {*found["2 of 10 weak"]} == {*CROWD.crowd}


def test_the_audit_takes_shards_from_liars_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(replace(STUDY, audit=0.5))
    agreed = lab.agree(0)
    assert without_accused(lab, agreed, 0) == {"weights": [1.0, 1.0, 1.0]}
    honest = before_audit(lab, agreed)
    said = honest.honest | {"beta": -honest.honest["beta"]}
    monkeypatch.setattr(contribution, "before_audit", lambda *_: replace(honest, honest=said))
    assert without_accused(lab, agreed, 0) == {"weights": [1.0, 0.0, 1.0]}
