"""Push and pull: only complete datasets are accepted, wherever either was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import coopt_fl
from coopt_fl.core import remote
from coopt_fl.core.errors import ConfigError, CooptError, DataError, OutputError, VerificationError
from coopt_fl.optimized import huggingface
from coopt_fl.optimized.transfer import MANIFEST, STUDENT, pull, push
from tests.unit.optimized.make import SKIPPED, edit, finish, sha256

EXTRA = {STUDENT: b"a student"}
FILES = 7
"""Three data files, the student, the card, Croissant and the provenance."""


def nothing(done: int, total: int) -> None:
    pass


@pytest.fixture(params=["path", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("bucket") if request.param == "s3" else tmp_path / "there")


def stop_at(number: int, function: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Make call ``number`` of a ``remote`` function fail; return a function for the URLs so far."""
    real, seen = getattr(remote, function), list[str]()

    def failing(url: str, *args: object) -> object:
        if len(seen) == number:
            raise OutputError("the network is gone")
        done = real(url, *args)
        seen.append(url)
        return done

    monkeypatch.setattr(remote, function, failing)
    return lambda: seen


def test_what_is_pulled_is_what_was_pushed(dataset: Path, place: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sent = push(dataset, place, EXTRA, lambda *counts: told.append(counts))
    assert told == [(done, FILES) for done in range(1, FILES + 1)]
    assert sent.written == len(sent.manifest.files) == FILES
    got = pull(place, tmp_path / "here", nothing)
    assert (got.manifest, got.written) == (sent.manifest, FILES)
    ours = {path.relative_to(dataset): path.read_bytes() for path in dataset.rglob("*.*")}
    there = tmp_path / "here" / "dataset"
    assert {path.relative_to(there): path.read_bytes() for path in there.rglob("*.*")} == ours
    assert (tmp_path / "here" / STUDENT).read_bytes() == b"a student"
    assert coopt_fl.load(tmp_path / "here").digest == coopt_fl.load(dataset).digest


@pytest.mark.parametrize("number", range(FILES + 1))
def test_a_push_that_was_stopped_leaves_nothing_to_pull(
    number: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "there")
    with monkeypatch.context() as patch:
        stop_at(number, "store", patch)
        with pytest.raises(OutputError, match="network"):
            push(dataset, place, EXTRA, nothing)
    with pytest.raises(DataError, match=r"no finished dataset at .* run `coopt push` to its end"):
        pull(place, tmp_path / "here", nothing)
    assert not (tmp_path / "here").exists()
    push(dataset, place, EXTRA, nothing)
    assert pull(place, tmp_path / "here", nothing).written == FILES


@pytest.mark.parametrize("number", range(1, FILES + 1))
def test_a_pull_that_was_stopped_is_no_dataset_and_continues(
    number: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first four calls fetch files that must agree before anything is written."""
    place, here = str(tmp_path / "there"), tmp_path / "here"
    push(dataset, place, EXTRA, nothing)
    with monkeypatch.context() as patch:
        stop_at(number, "fetch", patch)
        with pytest.raises(OutputError, match="network"):
            pull(place, here, nothing)
    with pytest.raises(CooptError):
        coopt_fl.load(here)
    assert pull(place, here, nothing).written == FILES - (number - 2 if number >= 4 else 0)
    assert pull(place, here, nothing).written == 0
    coopt_fl.load(here)


def test_a_second_push_sends_only_what_is_new(dataset: Path, place: str) -> None:
    assert push(dataset, place, {}, nothing).written == FILES - 1
    assert push(dataset, place, {}, nothing).written == 0
    assert push(dataset, place, EXTRA, nothing).written == 1


def test_another_dataset_is_neither_pushed_nor_pulled_over_one(
    dataset: Path, tmp_path: Path
) -> None:
    finish(tmp_path / "other", SKIPPED[:1])
    push(dataset, str(tmp_path / "a"), {}, nothing)
    push(tmp_path / "other" / "dataset", str(tmp_path / "b"), {}, nothing)
    with pytest.raises(OutputError, match="holds another dataset"):
        push(dataset, str(tmp_path / "b"), {}, nothing)
    pull(str(tmp_path / "a"), tmp_path / "here", nothing)
    with pytest.raises(OutputError, match="holds another dataset"):
        pull(str(tmp_path / "b"), tmp_path / "here", nothing)


def test_a_damaged_dataset_is_not_pushed(dataset: Path, tmp_path: Path) -> None:
    edit(dataset, lambda p: p["block_digests"].reverse())
    with pytest.raises(VerificationError, match="is damaged"):
        push(dataset, str(tmp_path / "there"), {}, nothing)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    "path", ["data/part-00001.parquet", "provenance.json", "README.md", "croissant.json", STUDENT]
)
def test_a_file_that_was_changed_there_is_refused(path: str, dataset: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(dataset, str(there), EXTRA, nothing)
    content = bytearray((there / path).read_bytes())
    content[len(content) // 2] ^= 1
    (there / path).write_bytes(content)
    with pytest.raises(VerificationError, match="its sha256 differs"):
        pull(str(there), tmp_path / "here", nothing)
    with pytest.raises(CooptError):
        coopt_fl.load(tmp_path / "here")


def test_a_manifest_of_other_targets_does_not_make_them_right(
    dataset: Path, tmp_path: Path
) -> None:
    """An attacker can write checksums, too, but cannot change the digest that others know."""
    there, here = tmp_path / "there", tmp_path / "here"
    push(dataset, str(there), {}, nothing)
    manifest = json.loads((there / MANIFEST).read_text())
    manifest["digest"] = "0" * 64
    (there / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="do not match"):
        pull(str(there), here, nothing)
    with pytest.raises(CooptError):
        coopt_fl.load(here)


def claim(there: Path, path: str, content: bytes) -> None:
    """Replace a file, and its checksum in the manifest."""
    (there / path).write_bytes(content)
    manifest = json.loads((there / MANIFEST).read_text())
    manifest["files"][path] = {"bytes": len(content), "sha256": sha256(there / path)}
    (there / MANIFEST).write_text(json.dumps(manifest))


def test_no_pull_replaces_what_is_sound(dataset: Path, tmp_path: Path) -> None:
    """Neither files from a URL with the same digest, nor a student that was trained since."""
    there, here = tmp_path / "there", tmp_path / "here"
    push(dataset, str(there), EXTRA, nothing)
    pull(str(there), here, nothing)
    (here / STUDENT).write_bytes(b"mine")
    before = {path: path.read_bytes() for path in here.rglob("*.*") if path.is_file()}
    assert pull(str(there), here, nothing).written == 0
    claim(there, "data/part-00001.parquet", b"something else")
    with pytest.raises(VerificationError, match="lists other data than"):
        pull(str(there), here, nothing)
    edit(there, lambda p: p["files"][1].update(sha256=sha256(there / "data/part-00001.parquet")))
    claim(there, "provenance.json", (there / "provenance.json").read_bytes())
    assert pull(str(there), here, nothing).written == 0
    assert {path: path.read_bytes() for path in here.rglob("*.*") if path.is_file()} == before


def test_a_pull_mends_what_is_damaged_or_says_what_to_delete(dataset: Path, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    push(dataset, str(there), {}, nothing)
    pull(str(there), here, nothing)
    (here / "dataset/data/part-00001.parquet").write_bytes(b"torn")
    assert pull(str(there), here, nothing).written == 1
    for name in ("provenance.json", "data/part-00099.parquet"):
        path = here / "dataset" / name
        path.write_bytes(b"{torn")
        with pytest.raises(OutputError, match=rf"{name}.*and pull again"):
            pull(str(there), here, nothing)
        path.unlink()
        pull(str(there), here, nothing)
    coopt_fl.load(here)


def test_a_push_writes_again_what_is_gone_or_short(dataset: Path, place: str) -> None:
    push(dataset, place, {}, nothing)
    remote.remove(remote.join(place, "data/part-00000.parquet"))
    remote.store(remote.join(place, "data/part-00001.parquet"), b"torn")
    assert push(dataset, place, {}, nothing).written == 2


def test_a_card_names_the_licence_that_follows(dataset: Path, tmp_path: Path) -> None:
    """Another licence is neither pushed nor pulled; Croissant is written anew."""
    there, here = tmp_path / "there", tmp_path / "here"
    sound, described = ((dataset / name).read_bytes() for name in ("README.md", "croissant.json"))
    (dataset / "croissant.json").write_bytes(described.replace(b"unknown", b"mit"))
    free = sound.replace(b"license: unknown", b"license: mit")
    (dataset / "README.md").write_bytes(free)
    with pytest.raises(VerificationError, match="names another licence than 'unknown'"):
        push(dataset, str(there), {}, nothing)
    assert not there.exists()
    (dataset / "README.md").unlink()
    push(dataset, str(there), {}, nothing)
    assert (there / "README.md").read_bytes() == sound
    assert (there / "croissant.json").read_bytes() == described
    claim(there, "croissant.json", described.replace(b"unknown", b"mit"))
    pull(str(there), here, nothing)
    assert (here / "dataset/croissant.json").read_bytes() == described
    claim(there, "README.md", free)
    with pytest.raises(VerificationError, match="names another licence"):
        pull(str(there), tmp_path / "new", nothing)
    assert not (tmp_path / "new/dataset").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 1}',
        b'{"format": 2, "complete": true, "digest": "%s", "files": {}}' % (b"0" * 64),
        b'{"format": 1, "complete": true, "digest": "%s", "files": {}}' % (b"0" * 64),
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match="is not a manifest of a pushed dataset"):
        pull(str(tmp_path), tmp_path / "here", nothing)


@pytest.mark.parametrize("path", ["../x", "/x", "data/../../x", "x.py", "data/part-1.parquet/x"])
def test_a_manifest_names_no_other_file(path: str, dataset: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(dataset, str(there), {}, nothing)
    manifest = json.loads((there / MANIFEST).read_text())
    manifest["files"][path] = {"bytes": 1, "sha256": "0" * 64}
    (there / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="its files are not those"):
        pull(str(there), tmp_path / "here", nothing)


def test_a_dataset_of_before_gets_its_croissant(dataset: Path, tmp_path: Path) -> None:
    (dataset / "croissant.json").unlink()
    push(dataset, str(tmp_path / "there"), {}, nothing)
    known = json.loads((tmp_path / "there" / "croissant.json").read_text())
    assert known["name"] == "synthetic-optimized"


@pytest.mark.parametrize("url", ["hf://", "hf://name", "hf://datasets/user/name", "hf://u/n@main"])
def test_a_repository_is_user_and_name(url: str) -> None:
    with pytest.raises(ConfigError, match="write hf://USER/NAME"):
        huggingface.repository(url)
    assert huggingface.repository("hf://user/name") == "user/name"
    assert huggingface.repository("s3://user/name") is None
