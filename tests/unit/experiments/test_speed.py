"""Speed-ups of planted curves, worked out by hand."""

import pytest

from experiments.document import speed_ups


def cell(objective: str, seconds: float, accuracies: list[float], preparation: float = 0) -> dict:
    curve = [
        {"epoch": i, "samples": 0, "seconds": seconds * i, "loss": 0.0, "accuracy": a}
        for i, a in enumerate(accuracies, start=1)
    ]
    before = {"preparation s, one device": preparation, "preparation s, one each": preparation / 2}
    known = {"objective": objective, "seed": 0, "accuracy": accuracies[-1], "curve": curve}
    return known | before


def test_weak_priors_are_compared_with_both_trainings_without_any() -> None:
    def as_row(row: dict) -> dict:
        return {"how": row.pop("objective")} | row

    cells = [
        as_row({"objective": "random", "seed": 0, "accuracy": 0.2}),
        as_row(cell("best", 1.0, [0.2, 0.3], preparation=8.0)),
        as_row(cell("rela", 2.0, [0.2, 0.2], preparation=8.0)),
        as_row(cell("byol", 3.0, [0.1, 0.2])),
        as_row(cell("simclr", 2.0, [0.1, 0.3])),
    ]
    rows = {row["how"]: row for row in speed_ups(cells)}
    assert list(rows) == [f"{our} over {o}" for our in ("best", "rela") for o in ("byol", "simclr")]
    for row in (rows["best over byol"], rows["rela over byol"]):
        assert not [key for key in row if key.startswith("to accuracy")], "no better than random"
    assert rows["best over byol"]["equal, all, one device"]["mean"] == pytest.approx(6 / 10)
    assert rows["best over simclr"]["to accuracy, all, one each"]["mean"] == pytest.approx(4 / 6)
    assert "to accuracy, training alone" not in rows["rela over simclr"], "never reached"


def test_equal_epochs_and_time_to_the_baselines_accuracy() -> None:
    cells = [
        {"objective": "random", "seed": 0, "accuracy": 0.1},
        cell("regression", 1.0, [0.2, 0.3, 0.4, 0.5], preparation=8.0),
        cell("byol", 3.0, [0.1, 0.2, 0.2, 0.3]),
        cell("dino", 4.0, [0.6, 0.6, 0.6, 0.6]),
        cell("swav", 3.0, [0.3, 0.2, 0.2, 0.25]),
        cell("rela", 1.0, [0.2, 0.3, 0.4, 0.5], preparation=8.0),
    ]
    byol, dino, swav, rela = speed_ups(cells)
    assert byol["objective"] == "byol"
    means = {key: value["mean"] for key, value in byol.items() if key != "objective"}
    assert means == pytest.approx(
        {
            "equal, training alone": 3.0,
            "equal, all, one device": 12 / 12,
            "equal, all, one each": 12 / 8,
            "to accuracy, training alone": 12 / 2,
            "to accuracy, all, one device": 12 / 10,
            "to accuracy, all, one each": 12 / 6,
        }
    )
    assert {rela[key]["mean"] for key in means} == {1.0}, "it needs the same targets"
    assert not [key for key in dino if key.startswith("to accuracy")], "never reached"
    assert swav["to accuracy, training alone"]["mean"] == pytest.approx(3 / 2), "after one epoch"
