"""``croissant.json``: a description of the dataset in Croissant 1.1 (mlcommons.org/croissant/1.1).

It lists the files with their sha256, the columns with their types and shapes, and, by the PROV
ontology, what the dataset was derived from. It is written without a library; the tests read it by
mlcroissant.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from coopt_fl.core import typed
from coopt_fl.optimized.licences import licence_of, statements
from coopt_fl.optimized.provenance import DataFile, Provenance

CROISSANT = "croissant.json"
PAPER = "https://arxiv.org/abs/2505.14117"
RECORDS, FILES = "samples", "parts"

# fmt: off
OURS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
    "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)
# fmt: on
"""Words of the standard context that map to the same word of Croissant."""

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
} | {word: f"cr:{word}" for word in OURS}

Node = dict[str, Any]


def croissant(provenance: Provenance, published: date) -> Node:
    """Return the description of a dataset as JSON-LD."""
    name, licence = provenance.source["name"], licence_of(statements(provenance))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{name}-optimized",
        "description": (
            f"{provenance.rows} samples of {name}, each with a target of {provenance.dim} numbers "
            "that pretrained priors assigned to its image, to train a model by regression."
        ),
        "url": _of_dataset(provenance.digest),
        "version": "1.0.0",
        "datePublished": published.isoformat(),
        "creator": [
            {"@type": "sc:Organization", "name": one.name} for one in provenance.contributors
        ],
        "license": licence.short,
        "usageInfo": [{"@type": "sc:CreativeWork", "name": label} for label in licence.labels],
        "citeAs": PAPER,
        "prov:wasDerivedFrom": list(_origins(provenance)),
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": _program(provenance)},
        "distribution": [*map(_file, provenance.files), _all_files()],
        "recordSet": [_records(provenance)],
    }


def encoded(provenance: Provenance, published: date) -> bytes:
    """Return the content of the file."""
    text = json.dumps(croissant(provenance, published), indent=1, ensure_ascii=False)
    return text.encode(errors="backslashreplace") + b"\n"


def renewed(provenance: Provenance, before: bytes) -> bytes:
    """Return the content of the file, with only the date taken from the content ``before``."""
    try:
        known = typed.parse(dict[str, Any], before).get("datePublished")
        return encoded(provenance, date.fromisoformat(str(known)))
    except ValueError:
        return encoded(provenance, datetime.now(UTC).date())


def _program(provenance: Provenance) -> str:
    return f"CoOpt-FL {provenance.versions.get('coopt-fl', '')}".rstrip()


def _of_dataset(digest: str) -> str:
    """Return the URN of a dataset, which does not depend on its place."""
    return f"urn:coopt:dataset:{digest}"


def _origins(provenance: Provenance) -> Iterator[Node]:
    """Yield the images, each prior, and the dataset that this one revises."""
    source = provenance.source
    yield _entity(f"urn:coopt:source:{source['fingerprint']}", source["name"])
    for one in provenance.contributors:
        yield _entity(f"urn:coopt:weights:{one.weights_sha256}", one.prior)
    if provenance.parent:
        yield _entity(_of_dataset(provenance.parent), "the dataset that this one revises")


def _entity(urn: str, label: str) -> Node:
    return {"@id": urn, "@type": "prov:Entity", "prov:label": label}


def _file(file: DataFile) -> Node:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def _all_files() -> Node:
    return {
        "@type": "cr:FileSet",
        "@id": FILES,
        "name": FILES,
        "encodingFormat": "application/x-parquet",
        "includes": "data/part-*.parquet",
    }


def _records(provenance: Provenance) -> Node:
    names = ", ".join(f"{k}: {one.name}" for k, one in enumerate(provenance.contributors))
    shape = {"isArray": True, "arrayShape": str(provenance.dim)}
    return {
        "@type": "cr:RecordSet",
        "@id": RECORDS,
        "name": RECORDS,
        "key": {"@id": f"{RECORDS}/id"},
        "field": [
            _column("id", "cr:Int64", "row of the image in the source's train split"),
            _column("target", "cr:Float16", provenance.normalisation) | shape,
            _column("participant", "cr:Int16", f"whose target it is; {names}; -1: several"),
        ],
    }


def _column(name: str, kind: str, about: str) -> Node:
    return {
        "@type": "cr:Field",
        "@id": f"{RECORDS}/{name}",
        "name": name,
        "description": about,
        "dataType": kind,
        "source": {"fileSet": {"@id": FILES}, "extract": {"column": name}},
    }
