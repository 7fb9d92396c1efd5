"""With no, one or two GPUs, every row is there, either measured or with a reason."""

import importlib.util
from contextlib import nullcontext

import pytest
import torch

from coopt_fl.bench import handwritten, optimization, overlap, precision, student
from coopt_fl.bench.measure import Case, not_here

ONE = {"min": 1.0, "median": 1.0, "max": 1.0}


@pytest.fixture(params=[0, 1, 2])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


@pytest.mark.parametrize(
    ("crowd", "reasons"),
    [
        ("four-on-one-gpu", ["no-gpu", None, None]),
        ("two-gpus", ["no-gpu", "one-gpu", None]),
        ("two-cpu-shares", [None, "gpu-here", "gpu-here"]),
    ],
)
def test_a_crowd_needs_its_devices(gpus: int, crowd: str, reasons: list[str | None]) -> None:
    _, devices, _ = optimization.CROWDS[crowd]
    assert not_here(*devices) == reasons[gpus]


def test_settings_of_the_other_device_are_skipped_with_a_reason(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, reason = ("cuda", "gpu-here") if gpus else ("cpu", "no-gpu")
    others = [name for name, one in optimization.SETTINGS.items() if one.device != here]
    monkeypatch.setattr(optimization, "PLAN", {"array": others})
    monkeypatch.setattr(handwritten, "CASES", [("array", name, name, None) for name in others])
    for measure in (optimization.optimize, handwritten.handwritten):
        rows = list(measure())
        assert len(rows) == len(others) > 0
        assert {row["skipped"] for row in rows} == {reason}


def test_an_accelerator_is_simulated_where_there_is_none(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_optimizing", lambda case, *_: case.measured(ONE))
    monkeypatch.setattr(overlap, "_training", lambda case, *_: case.measured(ONE))
    monkeypatch.setattr(overlap, "pictures", lambda *_: nullcontext((None, None)))
    monkeypatch.setattr(overlap, "devices_for", lambda *_: nullcontext())
    rows = {row["name"]: row["skipped"] for row in overlap.overlap()}
    assert len(rows) == 6
    assert set(rows.values()) == {"gpu-here" if gpus else None}


def test_a_student_is_measured_on_the_best_device_alone(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = ("cuda", "cpu") if gpus else ("cpu", "cuda")
    monkeypatch.setattr(student, "STEPS", dict.fromkeys(student.STEPS, 1))  # few images to draw
    for name in ("_against_resident", "_against_byol"):
        monkeypatch.setattr(student, name, lambda *given: given[-1].measured(ONE))
    monkeypatch.setattr(student, "devices_for", lambda *given: nullcontext())
    rows = {row["name"]: row["skipped"] for row in student.student()}
    assert rows[f"student/{here}"] is rows[f"byol/{here}"] is None
    assert rows[f"student/{other}"] == rows[f"byol/{other}"] == ("gpu-here" if gpus else "no-gpu")


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_measured_on_a_cpu_that_has_it(
    has: bool, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    monkeypatch.setattr(precision, "_row", lambda case, *_: case.measured(ONE))
    reasons = {row["skipped"] for row in precision.precision()}
    assert reasons == {"gpu-here" if gpus else None if has else "no-bfloat16"}


def test_without_lightly_there_is_no_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    case = Case("byol/cpu", "path", "roofline")
    row = student._against_byol(None, None, "cpu", case)  # type: ignore[arg-type]
    assert row["skipped"] == "no-lightly"
