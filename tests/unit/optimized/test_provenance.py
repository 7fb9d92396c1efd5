"""The manifest: written, read back equal, and refused if it is invalid."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coopt_fl.config.load import from_tree, load_config
from coopt_fl.config.schema import PayloadConfig
from coopt_fl.core.errors import VerificationError
from coopt_fl.optimized.provenance import draft, read_provenance
from coopt_fl.optimized.public import public_prior, without_places
from coopt_fl.optimized.verify import verify
from tests.unit.optimized.make import config, edit, finish

Change = Callable[[dict[str, Any]], Any]


def test_round_trip(tmp_path: Path) -> None:
    written = finish(tmp_path)
    assert read_provenance(tmp_path / "dataset") == written
    assert written.config["targets"]["dim"] == config().targets.dim
    assert written.versions["python"].startswith("3.")
    assert {"lightly", "open_clip_torch", "openTSNE", "scikit-learn"} <= written.versions.keys()
    assert [c.name for c in written.contributors] == ["ann", "bob"]


def test_the_published_configuration_holds_no_place_and_can_be_loaded() -> None:
    url, prior = "s3://ann-bucket/home/ann/run", "checkpoint:/home/ann/x.pt?size=96"
    changes = f"data.root=/home/ann data.shards={url} payload.route={url} seed=3".split()
    ours = load_config("digits", [*changes, f"participants.0.prior={prior}"])
    published = draft(config=ours, source={}, reference="").config
    assert "ann" not in json.dumps(published)
    again = from_tree(published, [], "the published one")
    assert again.participants[0].prior == "checkpoint:x.pt?size=96"
    again.participants[0].prior = prior
    ours.data, ours.payload = replace(ours.data, root=None, shards=None), PayloadConfig()
    assert again == ours


PRIORS = {
    "timm:tf_efficientnet_lite0@bundled?size=96": None,
    "torchvision:resnet50/IMAGENET1K_V2": None,
    "open_clip:ViT-B-32/openai": None,
    "random:resnet18?size=96&seed=1": None,
    "trivial:24": None,
    "checkpoint:student.pt": None,
    "checkpoint:/home/ann/runs/student.pt?size=64": "checkpoint:student.pt?size=64",
    "checkpoint:~ann/student.pt": "checkpoint:student.pt",
    "checkpoint:../ann/student.pt": "checkpoint:student.pt",
    r"checkpoint:C:\Users\ann\student.pt": "checkpoint:student.pt",
    "open_clip:ViT-B-32//home/ann/clip.pt?size=96": "open_clip:ViT-B-32/clip.pt?size=96",
    "open_clip:ViT-B-32/ann/clip.pt": "open_clip:ViT-B-32/clip.pt",
    "mine:/home/ann/model": "mine:model",
    "/home/ann/model": "model",
}


@pytest.mark.parametrize("prior", PRIORS)
def test_a_published_prior_names_its_file_without_the_folder(prior: str) -> None:
    assert public_prior(prior) == (PRIORS[prior] or prior)


def test_a_sentence_is_published_without_the_places_in_it() -> None:
    said = "disk of ann@lab7 is full (/home/ann/x.pt, at https://lab7:9000/b); 3 of 4, 0.5 s"
    assert without_places({"reason": [said, 7, None]}) == {
        "reason": ["disk of … is full … at … 3 of 4, 0.5 s", 7, None]
    }


@pytest.mark.parametrize("key", ["root", "shards"])
def test_a_provenance_of_an_older_version_that_holds_a_path_is_read(
    key: str, dataset: Path
) -> None:
    edit(dataset, lambda p: p["config"]["data"].update({key: "/home/ann/images"}))
    edit(dataset, lambda p: p["contributors"][0].update(prior="checkpoint:/home/ann/x.pt"))
    read = read_provenance(dataset)
    assert read.config["data"][key] == "/home/ann/images"
    assert read.contributors[0].prior == "checkpoint:/home/ann/x.pt"
    assert verify(dataset)[1] == []


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
