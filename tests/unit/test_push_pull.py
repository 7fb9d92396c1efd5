"""`coopt push` and `coopt pull`: a dataset goes to a URL, from which others train on it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coopt_fl.students.checkpoint import read_checkpoint
from tests.unit.command import Coopt


@pytest.fixture
def run(coopt: Coopt) -> Path:
    assert coopt.centralized()[0] == 0
    return coopt.folder / "run"


def last(out: str) -> Any:
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("kind", ["path", "s3"])
def test_a_fresh_environment_trains_from_the_url_alone(
    kind: str,
    coopt: Coopt,
    run: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = request.getfixturevalue("bucket") + "/tiny" if kind == "s3" else "shared/tiny"
    code, out, _ = coopt("push", str(run), url, "--json")
    assert (code, last(out)["student"]) == (0, True)
    expected = last(coopt("train", str(run), "--out", "mine", "student.epochs=2", "--json")[1])
    shutil.rmtree(run)
    monkeypatch.setenv("COOPT_CACHE", str(coopt.folder / "another cache"))
    if kind == "path":  # a path is a folder on this host
        code, out, _ = coopt("pull", url, "--json")
        found = last(out)
        assert (code, found["out"], found["written"]) == (0, "runs/tiny", found["files"])
    dataset = url if kind == "s3" else "runs/tiny"
    code, out, _ = coopt("train", dataset, "student.epochs=2", "--json")
    assert (code, last(out)["loss_per_epoch"]) == (0, expected["loss_per_epoch"])
    assert last(out)["checkpoint"] == "runs/tiny/students/convnet-2/checkpoint.pt"
    assert coopt("inspect", "runs/tiny")[0] == 0
    assert coopt("probe", "runs/tiny")[0] == 0


def test_it_says_what_is_next_and_what_the_licences_forbid(coopt: Coopt) -> None:
    coopt.centralized("participants.0.license=cc-by-nc-4.0")
    code, out, err = coopt("push", "run", "there")
    assert "Not for commercial use: the prior of alpha (cc-by-nc-4.0)" in err
    assert (code, f"coopt pull {coopt.folder}/there" in out) == (0, True)
    code, out, _ = coopt("pull", "there", "--out", "got it")
    assert (code, "coopt train 'got it'" in out) == (0, True)


def test_a_student_of_another_licence_is_told(coopt: Coopt) -> None:
    stricter = coopt.folder / "run/student/checkpoint.pt"
    coopt.centralized("participants.0.license=cc-by-nc-4.0")
    free = ["participants.0.license=mit", "data.license=mit", f"student.init={stricter}"]
    asked = ("centralized", coopt.tiny, "--prior", "alpha", "--out", "next", *free)
    assert coopt(*asked)[0] == 0
    code, _, err = coopt("push", "next", "there")
    assert (code, "student beside the dataset has another licence: non-commercial" in err) == (
        0,
        True,
    )


def test_a_pushed_student_does_not_say_where_its_images_were(coopt: Coopt, run: Path) -> None:
    student = run / "student" / "checkpoint.pt"
    assert "root" in read_checkpoint(student)["meta"]["data"]
    coopt("push", str(run), "there")
    meta = read_checkpoint(coopt.folder / "there" / "student" / "checkpoint.pt")["meta"]
    assert meta["data"]["root"] is meta["data"]["shards"] is None
    assert str(coopt.folder).encode() not in Path("there/student/checkpoint.pt").read_bytes()


def test_the_hub_is_asked_for_one_commit_and_one_snapshot(
    coopt: Coopt, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check only the calls of huggingface_hub, without the Hub itself."""
    import huggingface_hub

    asked: list[Any] = []
    hub = coopt.folder / "hub"

    class Api:
        def create_repo(self, repo_id: str, **how: Any) -> None:
            asked.append((repo_id, how))

        def upload_folder(self, *, folder_path: str, **how: Any) -> None:
            asked.append(how)
            shutil.copytree(folder_path, hub)

    def snapshot(repo_id: str, **how: Any) -> str:
        asked.append((repo_id, how))
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert coopt("push", str(run), "hf://ann/tiny")[0] == 0
    assert coopt("pull", "hf://ann/tiny", "--out", "here")[0] == 0
    created, uploaded, fetched = asked
    assert created == ("ann/tiny", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert (uploaded["repo_id"], uploaded["repo_type"]) == ("ann/tiny", "dataset")
    assert fetched == ("ann/tiny", {"repo_type": "dataset"})
    assert {"README.md", "manifest.json", "provenance.json"} <= {p.name for p in hub.iterdir()}


@pytest.mark.parametrize("command", [["push", "run"], ["pull"]])
def test_a_hub_that_cannot_be_reached_is_one_sentence(
    command: list[str], coopt: Coopt, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def refused(*args: Any, **named: Any) -> None:
        raise ConnectionError("connection refused\nby 127.0.0.1")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", refused)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    code, _, err = coopt(*command, "hf://ann/tiny")
    assert code in (3, 6)
    assert err.splitlines()[-1].startswith("error: hf://ann/tiny cannot be")
    assert "(connection refused)" in err and "Traceback" not in err


@pytest.mark.parametrize("place", ["", "s3:/bucket/x", "run", "run/x", "file://HERE/run/dataset"])
def test_a_push_goes_to_a_place_outside_of_the_run(place: str, coopt: Coopt, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, _, err = coopt("push", str(run), place.replace("HERE", str(coopt.folder)))
    assert (code, "give a p" in err) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_the_runs_of_other_commands_are_on_this_host(coopt: Coopt) -> None:
    code, _, err = coopt("inspect", "s3://bucket/tiny")
    assert (code, "coopt pull URL" in err) == (2, True)


def test_a_training_does_not_pull_over_another_dataset(coopt: Coopt, run: Path) -> None:
    coopt("push", str(run), "there")
    assert coopt("centralized", coopt.tiny, "--prior", "beta", "--out", "runs/there")[0] == 0
    code, _, err = coopt("train", f"file://{coopt.folder}/there")
    assert (code, "runs/there holds another dataset; delete it, or give" in err) == (6, True)


def test_a_student_of_a_non_commercial_prior_makes_a_non_commercial_dataset(coopt: Coopt) -> None:
    """This holds even if the next run states a free licence for the checkpoint."""
    coopt.centralized("participants.0.license=cc-by-nc-4.0")
    prior = f"participants.0.prior=checkpoint:{coopt.folder}/run/student/checkpoint.pt"
    free = ["participants.0.license=apache-2.0", "data.license=apache-2.0"]
    asked = ("centralized", coopt.tiny, prior, "--prior", "alpha", "--out", "next", *free)
    assert coopt(*asked)[0] == 0
    card = Path("next/dataset/README.md").read_text()
    assert "license: other\nlicense_name: non-commercial\n" in card
