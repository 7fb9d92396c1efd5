"""Other routes for images and payloads than local disk and Flower give the same dataset."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message

import coopt_fl
from coopt_fl import delivery
from coopt_fl.core.errors import ConfigError, DataError
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import Receipt
from coopt_fl.optimized.verify import verify
from tests.flower.deployment import OFFLINE, Deployment, impatient, patient, targets_of
from tests.flower.grid import run_platform, tiny

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture(params=["path", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that the platform and all participants can write to and read from."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    folder = tmp_path / "remote"
    return str(folder) if request.param == "path" else f"file://{folder}"


def digest(out: Path) -> str:
    return coopt_fl.load(out).digest


def test_payloads_out_of_band_make_the_same_dataset(
    url: str, undisturbed: Path, tmp_path: Path
) -> None:
    grid = Deployment().start(*NAMES)
    run_platform(patient(**{"payload.route": url}), tmp_path / "apart", grid)
    assert digest(tmp_path / "apart") == digest(undisturbed)
    replies = json.loads((tmp_path / "apart" / "state" / "uploads.json").read_text())
    direct = json.loads((undisturbed / "state" / "uploads.json").read_text())
    assert replies.keys() == direct.keys()
    assert all(replies[name] > direct[name] / 2 for name in NAMES)


def test_what_was_adopted_is_removed(tmp_path: Path) -> None:
    run_platform(tiny(**{"payload.route": str(tmp_path / "remote")}), tmp_path / "run")
    assert [path for path in (tmp_path / "remote").rglob("*") if path.is_file()] == []


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npz"))


def test_a_part_that_was_changed_is_not_used(tmp_path: Path) -> None:
    """A third party writes into the store: the digest does not match, and no file is adopted."""

    class Changing(Deployment):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            for part in parts(tmp_path / "remote"):
                part.write_bytes(b"x" * part.stat().st_size)
            return super().pull_messages(message_ids)

    config = impatient(**{"payload.route": str(tmp_path / "remote")})
    with pytest.raises(DataError, match="is not the one that it announced"):
        run_platform(config, tmp_path / "run", Changing().start(*NAMES))
    assert list((tmp_path / "run" / "state").glob("blocks/*")) == []


@pytest.mark.parametrize(
    ("forge", "asked", "reason"),
    [
        pytest.param(
            lambda true: replace(true, sha256="0" * 64),
            3,
            "is not the one that it announced",
            id="the sum of another file",
        ),
        pytest.param(
            lambda true: replace(true, size=true.size + 1),
            3,
            "is not the one that it announced",
            id="a byte more",
        ),
        pytest.param(
            lambda true: replace(true, size=true.size - 1),
            3,
            "is not the one that it announced",
            id="a byte less",
        ),
        pytest.param(lambda true: replace(true, size=0), 1, "has 0 bytes", id="nothing"),
        pytest.param(
            lambda true: replace(true, size=10**12),
            1,
            "has 1000000000000 bytes, expected at most",
            id="more than there is memory",
        ),
    ],
)
def test_who_announces_another_file_than_it_wrote_is_replaced(
    forge: Callable[[Receipt], Receipt], asked: int, reason: str, tmp_path: Path
) -> None:
    """A third party may have changed the content, so it is requested three times; a size is not."""

    class Forging(Deployment):
        def _answer(self, message: Message) -> Message | None:
            reply = super()._answer(message)
            name = self.names[message.metadata.dst_node_id]
            if name != "beta" or message.metadata.message_type != protocol.OPTIMIZE:
                return reply
            assert reply is not None
            requests.append(message)
            true = protocol.decode(Receipt, reply.content)
            return Message(protocol.encode(forge(true)), reply_to=message)

    requests: list[Message] = []
    config = patient(min_participants=2, **{"payload.route": str(tmp_path / "remote")})
    run_platform(config, tmp_path / "run", Forging().start(*NAMES))
    (change,) = verify(tmp_path / "run" / "dataset")[0].plan_changes
    assert (change["origin"], change["rejected"]) == ("beta", asked == 1)
    assert len(requests) == asked
    assert reason in change["reason"]
    assert set(coopt_fl.load(tmp_path / "run").participants.tolist()) == {0, 2}
    targets_of(tmp_path / "run")


def test_a_part_that_is_lost_is_asked_for_again(undisturbed: Path, tmp_path: Path) -> None:
    lost = []

    class Losing(Deployment):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            if not lost and parts(tmp_path / "remote"):
                lost.append(parts(tmp_path / "remote")[0])
                lost[0].unlink()
            return super().pull_messages(message_ids)

    config = patient(**{"payload.route": str(tmp_path / "remote")})
    run_platform(config, tmp_path / "run", Losing().start(*NAMES))
    assert lost
    assert digest(tmp_path / "run") == digest(undisturbed)


@pytest.mark.parametrize("route", ["flower", "out of band"])
def test_a_reply_that_is_lost_after_the_upload_costs_its_chunk(
    route: str, undisturbed: Path, tmp_path: Path
) -> None:
    """The payload was uploaded, but the platform only learns that beta went offline."""
    place = str(tmp_path / "remote")
    lost = []

    class Losing(Deployment):
        def _answer(self, message: Message) -> Message | None:
            reply = super()._answer(message)
            name = self.names[message.metadata.dst_node_id]
            if lost or name != "beta" or message.metadata.message_type != protocol.OPTIMIZE:
                return reply
            lost.extend(protocol.decode(protocol.Optimize, message.content).blocks)
            return Message(Error(code=OFFLINE, reason="gone"), reply_to=message)

    grid = Losing().start(*NAMES)
    settings = {} if route == "flower" else {"payload.route": place}
    run_platform(patient(**settings), tmp_path / "run", grid)
    assert digest(tmp_path / "run") == digest(undisturbed)
    assert verify(tmp_path / "run" / "dataset")[0].plan_changes == []
    assert {block for block, times in grid.done.items() if times > 1} == set(lost)
    assert parts(tmp_path / "remote") == [], "nobody will ever fetch it"


def test_a_file_that_comes_after_its_deadline_is_removed(tmp_path: Path) -> None:
    """beta is replaced while it is still writing; its file arrives after others have taken over."""
    late: list[tuple[Path, bytes]] = []

    class Late(Deployment):
        def _answer(self, message: Message) -> Message | None:
            reply = super()._answer(message)
            name = self.names[message.metadata.dst_node_id]
            if name == "beta" and message.metadata.message_type == protocol.OPTIMIZE:
                for part in (tmp_path / "remote").rglob("beta/*.npz"):
                    late.append((part, part.read_bytes()))
                    part.unlink()
                return Message(Error(code=OFFLINE, reason="gone"), reply_to=message)
            if late and name == "gamma":
                late[0][0].write_bytes(late[0][1])
            return reply

    settings = {"payload.route": str(tmp_path / "remote"), "min_participants": 2}
    run_platform(impatient(**settings), tmp_path / "run", Late().start(*NAMES))
    assert late
    assert parts(tmp_path / "remote") == []
    targets_of(tmp_path / "run")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("a file where a folder has to be")
    config = impatient(**{"payload.route": str(tmp_path / "remote")})
    with pytest.raises(Exception, match="remote"):
        run_platform(config, tmp_path / "run", Deployment().start(*NAMES))


def test_participants_without_images_read_published_shards(
    url: str, undisturbed: Path, tmp_path: Path
) -> None:
    config = patient(**{"data.shards": url})
    delivery.publish_shards(config, url=url, progress=None)
    run_platform(config, tmp_path / "shards", Deployment().start(*NAMES))
    assert digest(tmp_path / "shards") == digest(undisturbed)
    targets_of(tmp_path / "shards")


def test_shards_of_another_seed_are_refused_at_once(tmp_path: Path) -> None:
    url = str(tmp_path / "remote")
    delivery.publish_shards(tiny(seed=1), url=url, progress=None)
    with pytest.raises(DataError, match="are of other blocks, assignment, shared set or seed"):
        run_platform(tiny(**{"data.shards": url}), tmp_path / "run")


def test_no_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished shards"):
        run_platform(tiny(**{"data.shards": str(tmp_path)}), tmp_path / "run")


def test_shards_published_anew_meanwhile_are_refused(tmp_path: Path) -> None:
    """A participant must find the same shards as the platform has opened."""
    url, other = str(tmp_path / "remote"), tmp_path / "other"
    delivery.publish_shards(tiny(), url=url, progress=None)
    delivery.publish_shards(tiny(seed=1), url=str(other), progress=None)

    class Replacing(Deployment):
        def push_messages(self, messages: list[Message]) -> list[str]:
            shutil.copy(other / "manifest.json", tmp_path / "remote")
            return super().push_messages(messages)

    with pytest.raises(DataError, match="are not those that the platform opened"):
        run_platform(impatient(**{"data.shards": url}), tmp_path / "run", Replacing().start(*NAMES))


def test_provenance_names_neither_a_folder_of_payloads_nor_a_file_in_it(tmp_path: Path) -> None:
    place = str(tmp_path / "remote")
    grid = run_platform(tiny(**{"payload.route": place}), tmp_path / "run")
    provenance, problems = verify(tmp_path / "run" / "dataset")
    assert problems == []
    assert provenance.config["payload"] == {"route": "flower"}
    published = [path for path in (tmp_path / "run" / "dataset").rglob("*") if path.is_file()]
    text = b"".join(path.read_bytes() for path in published).decode(errors="replace")
    assert place not in text
    requests = [m for m in grid.sent if m.metadata.message_type == protocol.OPTIMIZE]
    files = [protocol.decode(protocol.Optimize, one.content).upload for one in requests]
    assert files and not any(Path(file).name in text for file in files)


@pytest.mark.parametrize("secret", ["://key:SECRET@bucket/run", "://bucket/run?sig=SECRET"])
@pytest.mark.parametrize("key", ["payload.route", "data.shards"])
def test_credentials_in_a_url_are_refused_and_not_repeated(key: str, secret: str) -> None:
    with pytest.raises(ConfigError, match="must have no user, password or query") as refused:
        tiny(**{key: f"s3{secret}"})
    assert "SECRET" not in str(refused.value)
