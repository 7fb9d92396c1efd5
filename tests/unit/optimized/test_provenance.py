"""The manifest: written, read back equal, and refused when it cannot be meant."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coopt_fl.config.load import from_tree, load_config
from coopt_fl.core.errors import VerificationError
from coopt_fl.optimized.provenance import draft, read_provenance
from tests.unit.optimized.make import config, edit, finish

Change = Callable[[dict[str, Any]], Any]


def test_round_trip(tmp_path: Path) -> None:
    written = finish(tmp_path)
    assert read_provenance(tmp_path / "dataset") == written
    assert written.config["targets"]["dim"] == config().targets.dim
    assert written.versions["python"].startswith("3.")
    assert {"lightly", "open_clip_torch", "openTSNE", "scikit-learn"} <= written.versions.keys()
    assert [c.name for c in written.contributors] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("s3://bucket/run", True),
        ("gs://bucket/run", True),
        ("file:///home/ann/run", False),
        ("FILE:///home/ann/run", False),
        ("local:///home/ann/run", False),
        ("/home/ann/run", False),
        ("home/ann", False),
    ],
)
def test_the_published_configuration_holds_no_path_of_this_machine(url: str, kept: bool) -> None:
    changes = f"data.root=/home/ann/images data.shards={url} payload.route={url} seed=3"
    ours = load_config("digits", changes.split())
    published = draft(
        config=ours, source={}, contributors=[], reference="", plan_changes=[], audit={}
    ).config
    assert "ann" not in json.dumps(published)
    again = from_tree(published, [], "the published one")
    assert again.data.shards == (url if kept else None)
    assert again.payload.route == (url if kept else "flower")
    ours.data = replace(ours.data, root=None, shards=again.data.shards)
    assert again == replace(ours, payload=again.payload)


def test_a_provenance_of_an_older_version_that_holds_a_path_is_read(dataset: Path) -> None:
    edit(dataset, lambda p: p["config"]["data"].update(root="/home/ann/images"))
    assert read_provenance(dataset).config["data"]["root"] == "/home/ann/images"


@pytest.mark.parametrize("below", ["", "state", "nowhere"])
def test_no_manifest_no_dataset(below: str, run: Path) -> None:
    with pytest.raises(VerificationError, match="holds no finished optimized dataset"):
        read_provenance(run / below)


BAD: dict[str, Change] = {
    "not complete": lambda p: p.update(complete=False),
    "later format": lambda p: p.update(format=3),
    "negative rows": lambda p: p.update(rows=-1),
    "file outside": lambda p: p["files"][0].update(path="../../etc/passwd"),
    "absolute file": lambda p: p["files"][0].update(path="/etc/passwd"),
    "file left out": lambda p: p["files"].pop(1),
    "last file left out": lambda p: p["files"].pop(),
    "overlap": lambda p: p["files"][1].update(first_block=2),
    "one digest less": lambda p: p["block_digests"].pop(),
    "digest of another kind": lambda p: p["block_digests"].__setitem__(0, "z" * 64),
    "digest that leaves": lambda p: p.update(digest="../" * 20 + "ab"),
    "negative block": lambda p: p["block_rows"].__setitem__(0, -1),
    "source without rows": lambda p: p["source"].pop("rows"),
    "source without fingerprint": lambda p: p["source"].pop("fingerprint"),
    "source of too many rows": lambda p: p["source"].update(rows=1 << 63),
    "skipped beyond int64": lambda p: p.update(skipped=[1 << 63]),
    "wider than a list": lambda p: p.update(dim=1 << 40),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_meant_is_refused(name: str, dataset: Path) -> None:
    edit(dataset, BAD[name])
    with pytest.raises(VerificationError, match=r"provenance\.json is not a provenance"):
        read_provenance(dataset)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}', b"[" * 10**5]
)
def test_what_is_no_manifest_is_refused(content: bytes, dataset: Path) -> None:
    (dataset / "provenance.json").write_bytes(content)
    with pytest.raises(VerificationError, match=r"provenance\.json is not a provenance"):
        read_provenance(dataset)
