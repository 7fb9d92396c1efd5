"""Terminal output shows names and paths literally, without rich's markup."""

from typing import Any

import pytest
from rich.console import Console, RenderableType

from coopt_fl.report import console as show
from coopt_fl.report.terminal import PIPE_WIDTH

ODD = "[b]a[/b] [old] [/i] :x: b"


def printed(value: RenderableType) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(value)
    return " ".join(capture.get().split())  # a long title is wrapped


def summary() -> dict[str, Any]:
    row = {"name": ODD, "prior": ODD, "uniformity": -1.0, "r2_heldout": 0.5, "samples": 3}
    return {
        "dataset": {"path": ODD, "digest": "d", "rows": 3, "dim": 2},
        "reference": ODD,
        "participants": [{**row, "seconds": 1.0, "samples_per_s": 3.0, "mb": 0.1}],
        "student": {"model": ODD, "probe_accuracy": None},
        "comparison": {"random_init": 0.1, "reference_prior": 0.2},
        "seconds": {"plan": 1.0},
    }


def inspected() -> dict[str, Any]:
    facts = dict.fromkeys(("digest", "reference", "normalisation", "seed"), ODD)
    facts |= {"rows": 3, "dim": 2, "source": {"name": ODD, "fingerprint": "f", "rows": 4}}
    person = {"name": ODD, "prior": ODD, "weights_sha256": ODD[:16]}
    person |= {"uniformity": -1.0, "r2_heldout": 0.5}
    return {
        "path": ODD,
        "provenance": {
            **facts,
            "skipped": [7],
            "contributors": [person],
            "config": {"targets": {"projection": ODD, "solver": ODD}},
            "plugins": {ODD: ODD},
        },
        "license": ODD,
        "problems": [ODD],
    }


def transferred() -> dict[str, Any]:
    counts = {"files": 2, "written": 1, "bytes": 9, "student": True}
    texts = {"url": ODD, "out": ODD, "digest": ODD, "license": ODD}
    return texts | {"needs_root": True} | counts


def probed(name: str) -> dict[str, Any]:
    by_name = {"accuracy": {name: 0.5}, "classifiers": {name: name}}
    return {"checkpoint": name, "kept": name, **by_name}


SHOWN = {
    "summary": (show.summary(summary()), 5),
    "trained": (
        show.trained(
            {"model": ODD, "epochs": 1, "seconds": 1.0, "loss_per_epoch": [1.0], "checkpoint": ODD}
            | {"run": ODD}
        ),
        4,
    ),
    "probed": (show.probed(probed(ODD)), 4),
    "inspected": (show.inspected(inspected()), 1 + 6 + 4 + 2 + 1),
    "published": (
        show.published(
            {"source": ODD, "rows": 3, "files": 2, "written": 0, "bytes": 9}
            | {"manifest_sha256": "d", "url": ODD, "owners": {ODD: ["a", "b"]}}
        ),
        3,
    ),
    "pushed": (show.pushed(transferred()), 4),
    "pulled": (show.pulled(transferred()), 4),
    "configuration": (show.configuration({"data": {"root": ODD}}), 1),
    "examined": (
        show.examined(
            {
                "devices": {ODD: ODD},
                "versions": {},
                "priors": {ODD: ODD},
                "sources": {ODD: None},
                "parts": {ODD: [ODD]},
                "plug-ins": {ODD: ODD},
                "exports": {ODD: ODD},
            }
        ),
        11,
    ),
    "exported": (
        show.exported(
            {"target": ODD, "files": [ODD], "folder": ODD, "difference": 0.0, "example": ODD}
        ),
        4,
    ),
    "embedded": (
        show.embedded(
            {
                **dict.fromkeys(("file", "model", "source", "split"), ODD),
                "rows": 2,
                "width": 3,
                "labeled": True,
                "skipped": 1,
            }
        ),
        4,
    ),
}


@pytest.mark.parametrize("name", list(SHOWN))
def test_markup_in_a_value_is_printed_as_it_is(name: str) -> None:
    value, times = SHOWN[name]
    assert printed(value).count(ODD) == times


@pytest.mark.parametrize(
    ("reference", "says"),
    [("consensus", "consensus, solver │ gcca, ridge"), ("a", "projection, solver │ pca, ridge")],
)
def test_a_dataset_tells_how_its_reference_made_targets(reference: str, says: str) -> None:
    found = inspected()
    found["provenance"]["reference"] = reference
    targets = {"projection": "pca", "solver": "ridge", "consensus": "gcca"}
    found["provenance"]["config"] = {"targets": targets}
    assert says in printed(show.inspected(found))


def test_styles_are_kept() -> None:
    title = show.probed(probed("c.pt"))
    console = Console(width=80, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as capture:
        console.print(title)
    assert "\x1b[3m" in capture.get()  # the title in italics


LONG = "/home/ann/" + 60 * "zq" + "/end"


@pytest.mark.parametrize("width", [40, 80, PIPE_WIDTH])
def test_nothing_is_cut_off(width: int) -> None:
    facts = {"devices": {LONG: LONG}, "versions": {}, "priors": {LONG: LONG}, "sources": {}}
    facts |= {"parts": {LONG: [LONG]}, "plug-ins": {LONG: LONG}, "exports": {}}
    people = summary()
    people["participants"][0] |= {"name": LONG, "prior": LONG, "samples": 123_456_789_012}
    for value, letters in ((show.examined(facts), 8 * 60), (show.summary(people), 2 * 60)):
        console = Console(width=width)
        with console.capture() as capture:
            console.print(value)
        said = capture.get()
        assert "…" not in said
        for line in said.splitlines():
            assert len(line) <= width
            assert line[0] not in "│┃" or line.rstrip()[-1] == line[0], "the last column is there"
        assert said.count("q") == letters


def test_numbers_stay_whole_where_there_is_room_for_them() -> None:
    people = summary()
    people["participants"][0] |= {"name": LONG, "prior": LONG, "samples": 123_456_789}
    console = Console(width=PIPE_WIDTH)
    with console.capture() as capture:
        console.print(show.summary(people))
    for number in ("-1.000", "0.500", "123,456,789", "3.0", "0.10"):
        assert f" {number} " in capture.get()
