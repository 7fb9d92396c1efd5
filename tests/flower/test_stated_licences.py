"""Licences on their way from those who state them to the dataset card of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import ConfigRecord, Message

from coopt_fl.config.key import dataset_key
from coopt_fl.core.errors import CooptError
from coopt_fl.federation import protocol
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.priors.schemes import trivial
from tests.flower.grid import FakeGrid, run_platform, tiny

MIT = {f"participants.{k}.license": "mit" for k in range(3)} | {"data.license": "mit"}


def card_of(out: Path) -> dict[str, Any]:
    """Return the front matter of a run's card."""
    found = yaml.safe_load((out / "dataset" / "README.md").read_text().split("---")[1])
    assert isinstance(found, dict)
    return found


def named(partition: int) -> dict[str, int | str]:
    """Return the node-config of a deployed participant; the last one says that it has a licence."""
    said = {"license": "cc-by-nc-4.0"} if partition == 2 else {}
    return {"name": ("alpha", "beta", "gamma")[partition], **said}


def test_one_non_commercial_prior_is_enough(tmp_path: Path) -> None:
    """This holds even if the run's configuration states a free licence for that prior."""
    config = tiny(**MIT)
    run_platform(config, tmp_path, FakeGrid(3, named, simulated=False))
    assert card_of(tmp_path)["license_name"] == "non-commercial"
    gamma = read_provenance(tmp_path / "dataset").contributors[2]
    assert gamma.licenses == {
        "library": trivial.license(None),
        "participant": "cc-by-nc-4.0",
        "run": "mit",
    }


def test_what_the_library_states_outweighs_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coopt_fl.federation import client_app

    monkeypatch.setattr(trivial, "license", lambda spec: "cc-by-nc-4.0")
    client_app._prior.cache_clear()
    free = MIT | {f"participants.{k}.license": "apache-2.0" for k in range(3)}
    try:
        run_platform(tiny(**free), tmp_path)
    finally:
        client_app._prior.cache_clear()
    assert card_of(tmp_path)["license_name"] == "non-commercial"


def test_a_licence_changes_neither_key_nor_digest(tmp_path: Path) -> None:
    plain, free = tiny(), tiny(**MIT)
    assert dataset_key(plain, "f") == dataset_key(free, "f")
    run_platform(plain, tmp_path / "plain")
    run_platform(free, tmp_path / "free")
    digests = {read_provenance(tmp_path / one / "dataset").digest for one in ("plain", "free")}
    assert len(digests) == 1
    assert card_of(tmp_path / "free")["license"] == "mit"


def retold(change: Any) -> Any:
    """Return a ``tamper`` that changes participants' descriptions, given as plain values."""

    def tamper(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == protocol.DESCRIBE:
            plain = json.loads(str(reply.content.config_records["plain"]["json"]))
            change(plain)
            reply.content["plain"] = ConfigRecord({"json": json.dumps(plain)})
        return reply

    return tamper


def test_an_older_participant_says_nothing(tmp_path: Path) -> None:
    grid = FakeGrid(3, tamper=retold(lambda plain: plain.pop("licenses")))
    run_platform(tiny(**{"data.license": "mit"}), tmp_path, grid)
    assert card_of(tmp_path)["license"] == "unknown"
    assert read_provenance(tmp_path / "dataset").contributors[0].licenses == {}


@pytest.mark.parametrize(
    "said", [{"library": "x" * 101}, {"run": "mit"}, {"library": "a | b"}, {"library": ""}, ["mit"]]
)
def test_what_is_no_licence_is_no_description(said: Any, tmp_path: Path) -> None:
    grid = FakeGrid(3, tamper=retold(lambda plain: plain.update(licenses=said)))
    with pytest.raises(CooptError, match="malformed Description"):
        run_platform(tiny(), tmp_path, grid)
