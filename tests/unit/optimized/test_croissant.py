"""mlcroissant, the reference implementation, validates what is written and reads all of it."""

import json
from datetime import date
from pathlib import Path

import mlcroissant
import numpy as np
import pytest

import coopt_fl
from coopt_fl.optimized.croissant import CROISSANT, croissant
from coopt_fl.optimized.provenance import read_provenance
from tests.unit.optimized.make import DIM, edit, sha256


def test_every_record_is_read_back_with_its_type_and_shape(dataset: Path) -> None:
    opened = mlcroissant.Dataset(dataset / CROISSANT)
    records = list(opened.records("samples"))
    ours = coopt_fl.load(dataset)
    assert [one["samples/id"] for one in records] == ours.ids.tolist()
    assert np.array_equal([one["samples/target"] for one in records], ours.targets)
    assert [one["samples/participant"] for one in records] == ours.participants.tolist()
    assert {type(one["samples/target"][0]) for one in records} == {np.float16}


def test_it_validates_without_a_word_and_says_what_each_column_is(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = mlcroissant.Dataset(dataset / CROISSANT).metadata
    assert not metadata.issues.errors and not metadata.issues.warnings
    assert not caplog.records
    assert metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    (records,) = metadata.record_sets
    assert records.key == ["samples/id"]
    target = next(one for one in records.fields if one.name == "target")
    assert target.array_shape_tuple == (DIM,)


def test_what_is_missing_or_wrong_would_be_said(dataset: Path) -> None:
    """This shows that mlcroissant's validation above would report errors."""
    made = json.loads((dataset / CROISSANT).read_text())
    lacking = {key: value for key, value in made.items() if key != "license"}
    context = mlcroissant.Context()
    mlcroissant.Metadata.from_json(context, lacking)
    assert context.issues.warnings
    made["recordSet"][0]["field"][1]["isArray"] = False
    with pytest.raises(mlcroissant.ValidationError, match="array_shape"):
        mlcroissant.Metadata.from_json(mlcroissant.Context(), made)


def test_each_file_has_its_sum(dataset: Path) -> None:
    files = mlcroissant.Dataset(dataset / CROISSANT).metadata.file_objects
    there = sorted(path.relative_to(dataset).as_posix() for path in dataset.glob("data/*"))
    assert sorted(one.content_url for one in files) == there
    assert all(one.sha256 == sha256(dataset / one.content_url) for one in files)


def test_its_lineage_names_images_priors_and_parent(dataset: Path) -> None:
    edit(dataset, lambda p: p.update(parent="c" * 64))
    known = read_provenance(dataset)
    made = croissant(known, date(2026, 1, 2))
    origins = {one["@id"]: one["prov:label"] for one in made["prov:wasDerivedFrom"]}
    assert origins[f"urn:coopt:source:{known.source['fingerprint']}"] == "synthetic"
    assert origins[f"urn:coopt:weights:{'a' * 64}"] in ("trivial:ann", "trivial:bob")
    assert f"urn:coopt:dataset:{'c' * 64}" in origins
    kept = mlcroissant.Metadata.from_json(mlcroissant.Context(), json.loads(json.dumps(made)))
    assert len(kept.to_json()["prov:wasDerivedFrom"]) == len(origins)


def test_its_license_is_the_cards_and_what_is_forbidden_is_labelled(dataset: Path) -> None:
    edit(dataset, lambda p: p["contributors"][0].update(licenses={"library": "cc-by-nc-4.0"}))
    made = croissant(read_provenance(dataset), date(2026, 1, 2))
    assert made["license"] == "non-commercial"
    labels = [one["name"] for one in made["usageInfo"]]
    assert "Not for commercial use: the prior of ann (cc-by-nc-4.0)" in labels
