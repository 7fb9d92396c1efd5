"""The dataset card: a README for people, with the front matter that Hugging Face needs."""

from collections.abc import Iterator, Mapping

from coopt_fl.core.errors import VerificationError
from coopt_fl.data.repository import front_matter
from coopt_fl.optimized.licences import UNKNOWN, licence_of, statements
from coopt_fl.optimized.provenance import Provenance

CARD = """\
---
pretty_name: Optimized {source}
license: {license}
task_categories: [image-feature-extraction]
configs:
  - config_name: default
    data_files: data/part-*.parquet
---
# {source}, optimized

{rows:,} samples of `{source}`, each with a target of {dim} numbers ({dtype}) that pretrained priors
assigned to it. Train any model to predict the target from the image, by plain regression, and
you get a representation at a fraction of the cost of self-supervised learning
([CoOpt](https://arxiv.org/abs/2505.14117)).

| contributor | prior | uniformity | held-out R2 of its alignment |
|---|---|---|---|
{contributors}

Aligned to: **{reference}**. Targets: {normalisation}; {augmentation}.{outside}

## Loading

```python
import coopt_fl
dataset = coopt_fl.load("PATH")           # ids, targets, provenance; mmap=True for large ones
```

or `datasets.load_dataset("parquet", data_files="PATH/data/*.parquet")`, pandas, DuckDB. Columns:
`id` (row of the sample in the source's train split), `target`, `participant` (index of the
contributor). `coopt inspect PATH` checks every sum and prints where it comes from.

## Source and licence

The images are not in here. Source `{source}`, fingerprint `{fingerprint}`. The licences of the
images and of the priors' weights may bind what you do with the targets:

| of | licence, as stated | by |
|---|---|---|
{statements}

{labels}

## Limits

Targets carry what the priors know and what they get wrong, with their biases. They describe the
unaugmented image: a student trained with augmentation learns to ignore it.{skipped}
"""


def dataset_card(provenance: Provenance) -> str:
    """Return the card as Markdown with YAML front matter."""
    rows = "\n".join(
        f"| {c.name} | `{c.prior}` | {_number(c.uniformity)} | {_number(c.r2_heldout)} |"
        for c in provenance.contributors
    )
    parts = ", ".join(f"{part} ({origin})" for part, origin in provenance.plugins.items())
    left_out = len(provenance.skipped)
    stated = statements(provenance)
    licence = licence_of(stated)
    shown = {
        "license": "\nlicense_name: ".join(filter(None, (licence.id, licence.name))),
        "statements": "\n".join(_rows(stated)),
        "labels": "\n\n".join(f"**{one}.**" for one in licence.labels) or "Nothing is forbidden.",
        "source": provenance.source["name"],
        "fingerprint": provenance.source["fingerprint"],
        "contributors": rows,
        "outside": f" Made with parts that do not ship: {parts}." if parts else "",
        "skipped": f" {left_out} unreadable images were left out." if left_out else "",
    }
    return CARD.format(**vars(provenance) | shown)


def require_license(card: bytes, provenance: Provenance, place: str) -> None:
    """Require that the card at ``place`` names the licence that follows from the provenance.

    Raises:
        VerificationError: it names another, or none.
    """
    head, licence = front_matter(card.decode(errors="replace")), licence_of(statements(provenance))
    if (head.get("license"), head.get("license_name") or "") != (licence.id, licence.name):
        raise VerificationError(
            f"{place} names another licence than {licence.short!r}, which follows from what "
            "provenance.json states: correct it, or delete it, and `coopt push` writes it anew"
        )


def _rows(stated: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the table's rows; a licence that nobody states is unknown."""
    for thing, said in stated.items():
        for who, words in (said or {"nobody": UNKNOWN}).items():
            yield f"| {thing} | {words} | {who} |"


def _number(value: float | None) -> str:
    """Return a number as text, empty if it is missing."""
    return "" if value is None else f"{value:.3f}"
