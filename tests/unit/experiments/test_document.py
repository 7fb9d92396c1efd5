"""The tables of the results' document are those of the committed results."""

import json
from pathlib import Path

import pytest

from experiments.document import DOCUMENTS, PLACE, filled, provenance, ranks, totals
from experiments.table import Cell, summary


def test_a_table_is_made_from_the_results_and_the_rest_is_kept(tmp_path: Path) -> None:
    accuracy, seconds = {"mean": 0.5, "std": 0.014, "n": 3}, {"mean": 12.0, "std": 2.0, "n": 3}
    row = {"objective": "ours", "training s": seconds, "accuracy": accuracy}
    long, one = {"mean": 1494.4, "std": 0.0, "n": 1}, {"mean": 0.5, "std": 0.0, "n": 1}
    single = {"objective": "theirs", "training s": long, "accuracy": one}
    tiny = row | {"objective": "small", "training s": {"mean": 0.03031, "std": 8e-6, "n": 2}}
    row["epochs"] = {"mean": 40.0, "std": 0.0, "n": 3}
    tiny["MB"], row["MB"] = (
        {"mean": m, "std": s, "n": 3} for m, s in ((1268.76, 43.46), (4026, 187))
    )
    (tmp_path / "a-cpu.json").write_text(json.dumps({"digits": {"table": [row, single, tiny]}}))
    text = "before\n<!-- a-cpu digits -->\nold\n<!-- end -->\nafter"
    made = filled(text, tmp_path)
    assert "| ours | 50.0 ± 1.4 | 12.0 ± 2.0 | 40 | 4,030 ± 190 | 3 |" in made
    assert "| small | 50.0 ± 1.4 | 0.0303 ± 0.0000 (2 seeds) | – | 1,270 ± 40 | 3 |" in made
    assert "| theirs | 50.0 | 1,490 | – | – | 1 |" in made  # one seed has no spread
    assert "old" not in made
    assert made.startswith("before\n<!-- a-cpu digits -->") and made.endswith("<!-- end -->\nafter")
    assert filled(made, tmp_path) == made


def test_rank_correlations_among_all_and_among_trained_priors(tmp_path: Path) -> None:
    planted = {"a": (-3.0, 0.7), "b": (-2.0, 0.9), "random:c": (-1.0, 0.2), "d": (-2.5, 0.8)}
    cells = [
        {"prior": prior, "seed": seed, "uniformity": uniformity, "accuracy": accuracy}
        for seed in (0, 1)
        for prior, (uniformity, accuracy) in planted.items()
    ]
    everyone, trained = ranks(cells)
    squares = 4 + 4 + 0 + 0  # of the differences of ranks
    assert everyone["rank correlation"]["mean"] == pytest.approx(1 - 6 * squares / (4 * 15))
    assert trained["rank correlation"] == {"mean": pytest.approx(-1), "std": 0.0, "n": 2}
    (tmp_path / "a-cpu.json").write_text(json.dumps({"digits": {"cells": cells}}))
    made = filled("<!-- a-cpu digits ranks -->\n<!-- end -->", tmp_path)
    assert "| trained priors | -1 | 2 |" in made


def test_the_documents_say_what_the_results_say() -> None:
    texts = [file.read_text() for file in DOCUMENTS.rglob("*.md")]
    assert any(PLACE.search(text) for text in texts)
    assert [filled(text) for text in texts] == texts


def test_totals_are_of_both_clocks_and_of_busy_seconds_where_they_are_known(tmp_path: Path) -> None:
    def cell(seed: int, accuracy: float, pace: float | None) -> Cell:
        curve = [{"epoch": k, "samples": k, "seconds": 9.0 * k, "loss": 1.0} for k in (1, 2)]
        known = {"objective": "ours", "seed": seed, "accuracy": accuracy, "curve": curve}
        return known | {"preparation s, one device": 5.0} | ({"epoch cpu s": pace} if pace else {})

    cells = [cell(0, 0.5, 4.0), cell(1, 0.7, None), {"objective": "random", "accuracy": 0.1}]
    known = {
        "cells": cells,
        "table": summary(cells, [{"objective": "ours"}, {"objective": "random"}]),
    }
    ours, untrained = totals(known)
    assert ours["training alone s"]["mean"] == pytest.approx((2 * 4.0 + 2 * 9.0) / 2)
    assert ours["all, one device s"]["mean"] == pytest.approx((2 * 4.0 + 2 * 9.0) / 2 + 5.0)
    assert (ours["epochs"]["mean"], ours["accuracy"]["mean"]) == (2.0, pytest.approx(0.6))
    assert set(untrained) == {"objective", "accuracy"}
    told = [cell | {"epochs": 2} for cell in cells]
    rows = [{"objective": name, "epochs": 2} for name in ("ours", "random")]
    found = totals({"cells": told, "table": summary(told, rows)})
    assert [row["epochs"] for row in found] == [2, 2]


def test_provenance_names_command_days_hardware_and_versions() -> None:
    about = {
        "command": "python -m x",
        "samples": 5000,
        "hardware": {"CPU": "two"},
        "versions": {"a": "1"},
    }
    cells = [{"date": "2026-01-02"}, {"date": "2026-01-01", "CPU": "Xeon"}, {"CPU": "Xeon"}]
    said = provenance({"about": about, "cells": cells[:1]})
    assert said == "`python -m x --root DIR`, 2026-01-02, 5,000 images; CPU two; a 1.\n"
    said = provenance({"about": about, "cells": cells})
    days = "2026-01-01 to 2026-01-02"
    assert f"{days}, 5,000 images; CPU two; of 3 cells 2 ran on Xeon; a 1.\n" in said
    about["hardware"] = {"cores": "2"}
    said = provenance({"about": about, "cells": cells})
    assert "; cores 2; of 3 cells 2 ran on Xeon, the others' CPU was not recorded; a 1" in said
