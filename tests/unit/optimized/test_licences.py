"""The card's licence: the strictest of those stated, and never freer."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.config.schema import DataConfig
from coopt_fl.optimized.card import dataset_card
from coopt_fl.optimized.licences import FREE, UNKNOWN, licence_of, of_source, stated
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.priors.spec import NOTHING
from tests.unit.optimized.make import edit, finish

RULES = {
    ("apache-2.0", "apache-2.0"): ("apache-2.0", ""),
    ("Apache-2.0 ", "apache 2.0"): ("apache-2.0", ""),
    ("apache-2.0", NOTHING): ("apache-2.0", ""),
    ("cc-by-nc-4.0", "cc-by-nc-4.0"): ("cc-by-nc-4.0", ""),
    ("cc-by-nc-nd-4.0", NOTHING): ("cc-by-nc-nd-4.0", ""),
    ("apache-2.0", "cc-by-nc-nd-4.0"): ("other", "no-redistribution"),
    ("apache-2.0", "cc-by-nc-4.0"): ("other", "non-commercial"),
    ("apache-2.0", "FAIR-Noncommercial-Research-License"): ("other", "non-commercial"),
    ("apache-2.0", "not commercial"): ("other", "non-commercial"),
    ("apache-2.0", "commercial use prohibited"): ("other", "non-commercial"),
    ("apache-2.0", "students only"): ("other", "non-commercial"),
    ("apache-2.0", "https://creativecommons.org/licenses/by_nc"): ("other", "non-commercial"),
    ("CC_BY_NC_4.0", "cc-by-nc-4.0"): ("cc-by-nc-4.0", ""),
    ("apache-2.0", "apple-amlr"): ("other", "non-commercial"),
    ("", "cc-by-nc-4.0"): ("other", "non-commercial"),
    ("apache-2.0", "for internal use"): ("other", "no-redistribution"),
    ("apache-2.0", ""): ("unknown", ""),
    ("apache-2.0", "unknown"): ("unknown", ""),
    ("dinov3-license", "unknown"): ("unknown", ""),
    ("apache-2.0", "dinov3-license"): ("other", "own-terms"),
    ("dinov3-license", "dinov3-license"): ("other", "own-terms"),
    ("mit", "apache-2.0"): ("other", "apache-2.0-and-mit"),
    (NOTHING, NOTHING): ("unknown", ""),
    ("", ""): ("unknown", ""),
}
"""The table of docs/publishing.md, by the licences of the images and of the only prior."""


@pytest.mark.parametrize("words", RULES)
def test_the_licence_follows_by_the_rules(words: tuple[str, str]) -> None:
    images, prior = ({"run": one} if one else {} for one in words)
    found = licence_of({"the images": images, "the prior of ann": prior})
    assert (found.id, found.name) == RULES[words]


def test_own_terms_are_named() -> None:
    """Custom terms are not evaluated, so the card must not claim a free licence."""
    found = licence_of({"the images": {"run": "mit"}, "the prior of ann": {"library": "gemma"}})
    assert found.labels == ["Own terms hold: the prior of ann (gemma)"]
    assert not licence_of({"the images": {"run": "mit"}}).labels


@given(
    st.sampled_from(["cc-by-nc-4.0", "CC BY-NC 4.0", "non commercial", "imagenet"]),
    st.lists(st.sampled_from(sorted(FREE)), max_size=4),
    st.booleans(),
)
def test_nothing_makes_a_non_commercial_part_free(nc: str, others: list[str], same: bool) -> None:
    """Neither do free licences of other parts, nor other statements about the same part."""
    things = {f"the prior of p{k}": {"library": one} for k, one in enumerate(others)}
    bound = {"library": nc, "participant": "apache-2.0"} if same else {"participant": nc}
    found = licence_of({"the images": bound, **things})
    assert found.id not in FREE and "non-commercial" in (found.name, "non-commercial")
    assert any(label.startswith("Not for commercial use: the images") for label in found.labels)


def test_a_second_statement_mends_an_unknown_one() -> None:
    said = stated("unknown", "mit")
    assert licence_of({"the prior of ann": said, "the images": {"run": "mit"}}).id == "mit"
    assert stated("", "") == {}


def test_what_is_known_of_the_images() -> None:
    assert of_source(DataConfig(source="cifar10")) == {}
    assert of_source(DataConfig(source="cifar10", license="mine")) == {"run": "mine"}
    both = of_source(DataConfig(source="tiny_imagenet", license="apache-2.0"))
    assert licence_of({"the images": both}).name == "non-commercial"


CARD = "---\nlicense: {}\nconfigs:\n- config_name: default\n---\n# A data set\n"


@pytest.mark.parametrize(
    ("license", "said"),
    [
        ("cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("[mit, cc-by-nc-4.0]", "mit, cc-by-nc-4.0"),
        ("other\nlicense_name: research-only", "research-only"),
        ("other", "other"),
        ("'`<b>`'", None),
        ("/home/ann", None),
        ("[", None),
        ("null", None),
        ("x" * 101, None),
    ],
)
def test_a_repository_states_it_in_its_card(license: str, said: str | None, tmp_path: Path) -> None:
    """The card may be in a parent folder; values that must not be published are left out."""
    (tmp_path / "README.md").write_text(CARD.format(license))
    (tmp_path / "default/train").mkdir(parents=True)
    wanted = {"publisher": said} if said else {}
    for source in ("parquet", "hf", "webdataset", "manifest"):
        for root in (tmp_path, tmp_path / "default"):
            assert of_source(DataConfig(source=source, root=str(root))) == wanted
    assert of_source(DataConfig(source="arrays", root=str(tmp_path))) == {}
    found = licence_of({"the images": wanted, "the prior of ann": {"library": "mit"}})
    if said and ("nc" in said or "research" in said):
        assert found.name == "non-commercial"


def test_cards_of_other_things_state_nothing(tmp_path: Path) -> None:
    """Neither a card without front matter, nor a parent's README that is not a dataset card."""
    (tmp_path / "x").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert of_source(DataConfig(source="parquet", root=str(tmp_path / "x"))) == {}
    (tmp_path / "x/README.md").write_text("# license: mit\n")
    assert of_source(DataConfig(source="parquet", root=str(tmp_path / "x"))) == {}
    assert of_source(DataConfig(source="parquet", root=str(tmp_path / "nowhere"))) == {}
    assert of_source(DataConfig(source="webdataset", root="s3://x/y.tar")) == {}


def test_what_save_to_disk_wrote_may_state_it(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/dataset_info.json").write_text('{"license": "mit"}')
    assert of_source(DataConfig(source="hf", root=str(tmp_path))) == {"publisher": "mit"}


def test_the_card_tells_who_stated_what_and_what_is_forbidden(tmp_path: Path) -> None:
    finish(tmp_path)
    dataset = tmp_path / "dataset"
    edit(dataset, lambda p: p["contributors"][0].update(licenses={"library": "cc-by-nc-4.0"}))
    edit(dataset, lambda p: p["source"].update(licenses={"run": "mit"}))
    card = dataset_card(read_provenance(dataset))
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "non-commercial")
    assert "| the prior of ann | cc-by-nc-4.0 | library |" in card
    assert "| the prior of bob | unknown | nobody |" in card
    assert "**Not for commercial use: the prior of ann (cc-by-nc-4.0).**" in card
    assert "**Nobody stated the licence of: the prior of bob.**" in card


def test_a_provenance_of_before_says_that_nothing_is_known(tmp_path: Path) -> None:
    finish(tmp_path)

    def older(tree: dict[str, Any]) -> None:
        assert "licenses" not in tree["source"]  # of what finish() makes
        for one in tree["contributors"]:
            del one["licenses"]

    edit(tmp_path / "dataset", older)
    card = dataset_card(read_provenance(tmp_path / "dataset"))
    assert yaml.safe_load(card.split("---")[1])["license"] == UNKNOWN
