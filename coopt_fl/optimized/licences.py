"""Stated licences of a dataset's images and priors, and the licence that follows for its card.

A licence counts as free only if its name is in :data:`FREE`. Any other text counts as terms of its
own and is searched for words that forbid something, so that a doubt makes the card stricter, never
freer. If several parties state a licence of one thing, all of them hold. The rules are a table in
``docs/publishing.md``.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.data.repository import stated_license
from coopt_fl.optimized.provenance import Provenance
from coopt_fl.priors.spec import NOTHING

LIBRARY, OWNER, PUBLISHER, RUN = "library", "participant", "publisher", "run"
"""Who states a licence: the prior's library or participant, the images' publisher, the run."""

UNKNOWN, OTHER = "unknown", "other"
"""Hugging Face's names for a licence that nobody stated, and for one without a name there."""

FREE = frozenset(
    {"afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0"}
    | {"cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "isc"}
    | {"mit", "ncsa", "odbl", "odc-by", "pddl", "unlicense", "wtfpl", "zlib"}
)
"""Licences that allow commerce and redistribution of derived works, by Hugging Face's names."""

NO_COMMERCE = (
    "apple-amlr",
    "imagenet",
    "seer-license",
    "https://github.com/facebookresearch/swag/blob/main/license",
)
"""Terms that allow only research, although their names do not say so."""

NAMED = re.compile(r"cc-by(-nc)?(-nd|-sa)?-[234]\.0|fair-noncommercial-research-license|apple-amlr")
"""Licences that have a name at Hugging Face but are not free."""

AGAINST_COMMERCE = re.compile(
    r"\bnc(?![a-z])|by-?nc|no[nt]?.?(for.)?commerc|commerc.*(\bnot?\b|prohibit|forbid|exclud)"
    "|research|academic|educat|student|personal|private|evaluation"
)
AGAINST_REDISTRIBUTION = re.compile(
    r"\bnd(?![a-z])|no.?deriv|re.?distribut|do.not.share|all.rights.reserved|propriet|confident|internal"
)

PUBLISHED = {
    "digits": "cc-by-4.0",
    "fashion_mnist": "mit",
    "tiny_imagenet": "imagenet",
    "synthetic": NOTHING,
}
"""Licences by the publishers of sources; for others, the card of their repository states it."""


@dataclass(frozen=True)
class Licence:
    """The licence on the card of a dataset.

    Attributes:
        id: one of Hugging Face's names.
        name: our name for it if ``id`` is "other", else "".
        labels: what is forbidden or unknown, and why: a sentence each.
    """

    id: str
    name: str
    labels: list[str]

    @property
    def short(self) -> str:
        """The licence in one word."""
        return self.name or self.id

    @property
    def shown(self) -> str:
        """The licence and its labels on one line."""
        return "; ".join([self.short, *self.labels])


def stated(library: str, owner: str) -> dict[str, str]:
    """Return what a prior's library and its participant state, without those that state nothing."""
    return {who: words for who, words in ((LIBRARY, library), (OWNER, owner)) if words}


def of_source(data: DataConfig) -> dict[str, str]:
    """Return the stated licences of the images, by who states them."""
    published = PUBLISHED.get(data.source) or stated_license(data)
    return {who: words for who, words in ((PUBLISHER, published), (RUN, data.license)) if words}


def statements(provenance: Provenance) -> dict[str, Mapping[str, str]]:
    """Return the stated licences of the images and of each prior, by who stated them."""
    priors = {f"the prior of {one.name}": one.licenses for one in provenance.contributors}
    return {"the images": provenance.source.get("licenses", {}), **priors}


def restated(provenance: Provenance, config: Config) -> list[str]:
    """Return the licences that ``config`` states otherwise than a published dataset, in words."""
    there = provenance.config
    pairs = {"data.license": (there["data"].get("license"), config.data.license)}
    for index, (old, new) in enumerate(
        zip(there["participants"], config.participants, strict=True)
    ):
        pairs[f"participants.{index}.license"] = (old.get("license"), new.license)
    return [f"{key}: {old} there, {new} here" for key, (old, new) in pairs.items() if old != new]


def licence_of(stated: Mapping[str, Mapping[str, str]]) -> Licence:
    """Return the licence that follows from what was stated of each thing."""
    named = {thing: _names(said.values()) for thing, said in stated.items()}
    because = {
        "Not to be redistributed": _things(named, AGAINST_REDISTRIBUTION.search),
        "Not for commercial use": _things(named, _forbids_commerce),
        "Nobody stated the licence of": _things(named, UNKNOWN.__eq__),
        "Own terms hold": _things(named, _has_own_terms),
    }
    labels = [f"{label}: {', '.join(things)}" for label, things in because.items() if things]
    closed, unsold, *_ = because.values()
    return Licence(*_first_rule(set().union(*named.values()), closed, unsold), labels)


def _first_rule(names: set[str], closed: list[str], unsold: list[str]) -> tuple[str, str]:
    """Return id and name by the first rule that holds."""
    only = next(iter(names)) if len(names) == 1 else ""
    if only in FREE or NAMED.fullmatch(only):
        return only, ""
    if closed:
        return OTHER, "no-redistribution"
    if unsold:
        return OTHER, "non-commercial"
    if UNKNOWN in names or not names:
        return UNKNOWN, ""
    return OTHER, "-and-".join(sorted(names)) if names <= FREE else "own-terms"


def _names(said: Iterable[str]) -> set[str]:
    """Return the stated licences of one thing, spelled as by Hugging Face."""
    words = {"-".join(one.lower().replace("_", "-").split()) for one in said}
    named = words - {UNKNOWN, OTHER, "none", "null", "n/a", ""}
    return named - {"-".join(NOTHING.split())} if named else {UNKNOWN}


def _things(named: Mapping[str, set[str]], holds: Callable[[str], object]) -> list[str]:
    """Return the things with a stated licence for which ``holds`` is true, and these licences."""
    found = {thing: sorted(filter(holds, names)) for thing, names in named.items()}
    return [
        thing if words == [UNKNOWN] else f"{thing} ({', '.join(words)})"
        for thing, words in found.items()
        if words
    ]


def _forbids_commerce(words: str) -> bool:
    return words in NO_COMMERCE or bool(AGAINST_COMMERCE.search(words))


def _has_own_terms(words: str) -> bool:
    """Whether words name terms of their own in which nothing forbidden is recognised."""
    known = words in FREE or words == UNKNOWN or NAMED.fullmatch(words)
    return not (known or _forbids_commerce(words) or AGAINST_REDISTRIBUTION.search(words))
