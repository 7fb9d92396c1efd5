"""The README's figures are made from results alone, and are self-contained files."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from experiments.document import PANELS, STUDY, draw

FIGURES = ("tsne", "table1_baselines")
SVG = "{http://www.w3.org/2000/svg}"


def results(folder: Path) -> None:
    rng = np.random.default_rng(0)
    cells = []
    for how in PANELS:
        places = rng.normal(size=(60, 2)).tolist()
        labels = (np.arange(60) % 3).tolist()
        cells.append({"targets": how, "places": places, "labels": labels, "owners": labels})
    table = [{"targets": how, "accuracy": {"mean": 0.25, "std": 0.0, "n": 1}} for how in PANELS]
    (folder / "tsne-cpu.json").write_text(json.dumps({STUDY: {"cells": cells, "table": table}}))
    trained = []
    for objective, before in (("regression", 4.0), ("byol", 0.0)):
        for seed in (0, 1):
            curve = [
                {"epoch": k, "samples": k, "seconds": 2.0 * k, "loss": 1.0, "accuracy": 0.3 * k}
                for k in (1, 2)
            ]
            made = {"preparation s, one device": before, "preparation s, one each": before / 2}
            trained.append(
                {"objective": objective, "seed": seed, "curve": curve, "accuracy": 0.6} | made
            )
    rows = [
        {"objective": name, "accuracy": {"mean": 0.1}} for name in ("random", "regression", "byol")
    ]
    known = {STUDY: {"cells": trained, "table": rows}}
    (folder / "table1_baselines-whole.json").write_text(json.dumps(known))


def test_both_figures(tmp_path: Path) -> None:
    results(tmp_path)
    made = []
    for _ in range(2):
        draw(tmp_path, tmp_path)
        made.append([(tmp_path / f"readme-{name}.svg").read_text() for name in FIGURES])
    assert made[0] == made[1]
    tsne, seconds = map(ET.fromstring, made[0])
    titles = [one.text for one in tsne.iter(f"{SVG}text")]
    assert titles == [
        "Not aligned: 25% agree",
        "Aligned to the consensus: 25% agree",
    ]
    drawn = " ".join(path.get("d", "") for path in tsne.iter(f"{SVG}path"))
    assert len(re.findall(r"M (\S+ \S+)\s+L \1", drawn)) == 2 * 60, "a dot for each target"
    words = {one.text for one in seconds.iter(f"{SVG}text")}
    assert {"regression", "byol", "seconds"} <= words and "random" not in words
    for text in made[0]:
        assert "prefers-color-scheme: dark" in text
        used, given = (set(re.findall(p, text)) for p in (r"var\((--[\w-]+)\)", r"(--[\w-]+):"))
        assert used <= given
        assert re.findall(r"(?:href|src)=.(?!#)", text) == []
