"""The choice of the image and label columns, which is never a guess."""

import json

import pyarrow as pa
import pytest

from coopt_fl.core.errors import DataError
from coopt_fl.data.columns import doubts, image_column, label_column

BYTES, TEXT, NUMBER = pa.binary(), pa.string(), pa.int64()
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def schema(columns: dict[str, pa.DataType], **marked: str) -> pa.Schema:
    """A schema with Hugging Face's metadata, which declares columns as "Image" or "ClassLabel"."""
    features = {name: {"_type": kind} for name, kind in marked.items()}
    told = json.dumps({"info": {"features": features}})
    return pa.schema(columns.items(), {"huggingface": told} if marked else None)


CIFAR10 = schema({"img": STRUCT, "label": NUMBER}, img="Image", label="ClassLabel")
CIFAR100 = schema(
    {"img": STRUCT, "fine_label": NUMBER, "coarse_label": NUMBER},
    img="Image",
    fine_label="ClassLabel",
    coarse_label="ClassLabel",
)


@pytest.mark.parametrize(
    ("found", "column"),
    [
        (CIFAR10, "img"),
        (CIFAR100, "img"),
        (schema({"photo": BYTES, "label": NUMBER}), "photo"),
        (schema({"photo": pa.large_binary()}), "photo"),
        (schema({"jpg": STRUCT, "json": TEXT}), "jpg"),
        (schema({"image": BYTES, "mask": BYTES}), "image"),
        (schema({"image": TEXT, "img": STRUCT}), "img"),
        (schema({"photo": STRUCT, "code": BYTES}, photo="Image"), "photo"),
    ],
)
def test_the_only_one_that_can_be_meant(found: pa.Schema, column: str) -> None:
    assert image_column("x", found, None) == column
    assert image_column("x", found, column) == column


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (schema({"left": STRUCT, "right": STRUCT}), "left and right"),
        (schema({"left": STRUCT, "right": STRUCT}, left="Image", right="Image"), "left and right"),
        (schema({"text": TEXT, "label": NUMBER}), r"no column of images, but text \(string\), lab"),
        (schema({"image": TEXT}), "column image of x holds string; store the bytes"),
        (schema({}), "but none at all"),
    ],
)
def test_anything_else_names_the_columns_and_the_key(found: pa.Schema, says: str) -> None:
    with pytest.raises(DataError, match=rf"{says}.*data\.image_column"):
        image_column("x", found, None)


def test_what_is_chosen_has_to_be_there_and_to_hold_images() -> None:
    found = schema({"left": STRUCT, "right": STRUCT, "text": TEXT})
    assert image_column("x", found, "right") == "right"
    for chosen, says in (("lefty", "no column lefty, but left"), ("text", "column text of x hold")):
        with pytest.raises(DataError, match=says):
            image_column("x", found, chosen)


@pytest.mark.parametrize(
    ("found", "chosen", "column"),
    [
        (CIFAR10, None, "label"),
        (CIFAR100, None, None),
        (CIFAR100, "fine_label", "fine_label"),
        (schema({"img": STRUCT, "breed": NUMBER}, img="Image", breed="ClassLabel"), None, "breed"),
        (schema({"img": STRUCT, "breed": NUMBER}), None, None),
        (CIFAR10, "absent", None),
    ],
)
def test_labels(found: pa.Schema, chosen: str | None, column: str | None) -> None:
    assert label_column("x", found, chosen) == column


def test_several_that_may_be_labels_are_named() -> None:
    assert doubts(CIFAR10, None) == doubts(CIFAR100, "fine_label") == ()
    (said,) = doubts(CIFAR100, None)
    assert said == ("labels may be in fine_label or coarse_label: choose one by data.label_column")


@pytest.mark.parametrize("told", [b"", b"[]", b'{"info": 3}', b'{"info": {"features": [1]}}'])
def test_metadata_of_anybody_are_harmless(told: bytes) -> None:
    found = pa.schema({"img": STRUCT}.items(), {"huggingface": told})
    assert image_column("x", found, None) == "img"
