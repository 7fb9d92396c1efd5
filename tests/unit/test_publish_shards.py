"""`coopt publish-shards`: output, files and exit codes."""

import gzip
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from coopt_fl.config.load import load_config
from coopt_fl.core.errors import OutputError
from coopt_fl.data import open_labels, open_source
from coopt_fl.data.blocks import make_blocks, make_units, shared_set
from coopt_fl.data.shards import open_shards
from tests.unit.command import Coopt
from tests.unit.data.make import encode, pixels, write
from tests.unit.data.pack import shard


def test_the_shards_are_those_of_the_run(coopt: Coopt) -> None:
    """They are the run's blocks with their audit ids, and its shared set."""
    code, out, _ = coopt("publish-shards", coopt.tiny, "seed=3", "--out", "shards", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["url"] == str(coopt.folder / "shards")
    assert (found["source"], found["rows"]) == ("synthetic", 120)
    assert (found["files"], found["written"]) == (7, 7)
    sizes = [file.stat().st_size for file in Path("shards").rglob("*.parquet")]
    assert found["bytes"] == sum(sizes)

    config = load_config(coopt.tiny, ["seed=3"])
    source = open_source(config.data)
    assert found["fingerprint"] == source.fingerprint
    shards = open_shards("shards")
    assert found["manifest_sha256"] == shards.manifest_sha256
    units = make_units(make_blocks(source.ids, 20, 3), 0.01, 3)
    assert [len(unit) for unit in units] == [21] * 6
    for number, unit in enumerate(units):
        assert len(shards.source([number], shared=False).read(unit)) == 21
    shared = shards.source([], shared=True).read(shared_set(source.ids, 40, 3))
    assert np.array_equal(shared[0], source.read(shared_set(source.ids, 40, 3)[:1])[0])


def test_it_continues_and_says_when_all_is_there(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coopt_fl.core import remote

    store = remote.store

    def failing(url: str, data: bytes) -> None:
        if "0000004" in url:
            raise OutputError("the disk is full")
        store(url, data)

    asked = ("publish-shards", coopt.tiny, "--out", f"file://{coopt.folder}/shards")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "store", failing)
        code, _, err = coopt(*asked)
    assert code == 6
    assert err.splitlines()[-1] == "error: the disk is full"
    code, out, err = coopt(*asked)
    assert (code, "7 files (3 of them now)" in out) == (0, True)
    assert "shards 7/7 files" in err
    code, out, _ = coopt(*asked)
    assert (code, "(all there already)" in out) == (0, True)
    code, _, err = coopt(*asked, "shared.size=41")
    assert code == 6
    assert "holds shards of another" in err


def test_what_can_only_be_streamed_is_copied_by_the_command_that_the_error_names(
    coopt: Coopt,
) -> None:
    """The error names the command; a run then finds the copy, and participants the shards."""
    many = [encode(pixels(seed)) for seed in range(50)], ["a", "b"] * 25
    write(coopt.folder / "in/x-train-0.tar.gz", gzip.compress(shard(many)))
    where = ("data.source=webdataset", "data.root=in")
    code, _, err = coopt("run", coopt.tiny, *where)
    assert code == 3
    (command,) = re.findall("`coopt (publish-shards .*) --out DIR`", " ".join(err.split()))
    assert "data.root=" in command and "data.limit=120" in command
    words = [word for word in shlex.split(command) if word != "parquet"]
    code, _, err = coopt(words[0], coopt.tiny, *words[1:], "--out", "shards")
    assert (code, err) == (0, err)
    config = load_config(coopt.tiny, [*where])
    source = open_source(config.data)
    assert (len(source), open_shards("shards").fingerprint) == (50, source.fingerprint)
    assert open_labels(config.data, "train").tolist() == [0, 1] * 25


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("digits",), 2, "Missing option '--out'"),
        (("digit", "--out", "x"), 2, "did you mean digits"),
        (("digits", "shared.size=5000", "--out", "x"), 3, "shared.size=5000"),
        (("digits", "--out", "foo://x"), 6, "`pip install 's3fs>=2025'`"),
        (("parquet", "data.root=nowhere", "--out", "x"), 3, "is not a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    coopt: Coopt, arguments: tuple[str, ...], code: int, says: str
) -> None:
    got, _, err = coopt("publish-shards", *arguments)
    assert (got, "Traceback" in err) == (code, False)
    assert says in " ".join(err.split())
