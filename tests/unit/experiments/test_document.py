"""The tables of the results' document are those of the committed results."""

import json
from pathlib import Path

from experiments.document import DOCUMENT, PLACE, filled


def test_a_table_is_made_from_the_results_and_the_rest_is_kept(tmp_path: Path) -> None:
    accuracy, seconds = {"mean": 0.5, "std": 0.014, "n": 3}, {"mean": 12.0, "std": 2.0, "n": 3}
    row = {"objective": "ours", "training s": seconds, "accuracy": accuracy}
    (tmp_path / "a-cpu.json").write_text(json.dumps({"digits": {"table": [row]}}))
    text = "before\n<!-- a-cpu digits -->\nold\n<!-- end -->\nafter"
    made = filled(text, tmp_path)
    assert "| ours | 50.0 ± 1.4 | 12 ± 2 | 3 |" in made
    assert "old" not in made
    assert made.startswith("before\n<!-- a-cpu digits -->") and made.endswith("<!-- end -->\nafter")
    assert filled(made, tmp_path) == made


def test_the_document_says_what_the_results_say() -> None:
    text = DOCUMENT.read_text()
    assert PLACE.search(text)
    assert filled(text) == text
