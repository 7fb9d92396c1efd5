"""Every failure is a sentence and an exit code, at once: never a traceback, nor hours of work."""

import errno
import io
import json
import os
import pwd
import re
import sys
from pathlib import Path

import pytest

from coopt_fl.cli import main as cli
from coopt_fl.core.files import write_json
from coopt_fl.core.log import LOG
from coopt_fl.students import doubts
from tests.unit.command import Coopt
from tests.unit.data.make import tree, write

STRANGE = os.fsdecode(b"caf\xe9")
LOCKED = "x" * 300
"""Not even root can find out whether a file of this name is there."""


def said(found: tuple[int, str, str]) -> tuple[int, str]:
    """Return exit code and the error, which is one sentence."""
    code, _, err = found
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in err and "not foreseen" not in err
    return code, last


def test_what_cannot_be_looked_at_is_said_with_the_code_of_its_kind(coopt: Coopt) -> None:
    run = ("centralized", coopt.tiny, "--prior", "alpha", "--out")
    folders = ("data.source=imagefolder", "data.source=parquet", "data.source=tiny_imagenet")
    commands = {
        (*run, f"{LOCKED}/run"): 6,
        **{(*run, "out", source, f"data.root={LOCKED}/in"): 3 for source in folders},
        (*run, "out", "data.source=arrays", f"data.root={LOCKED}/in"): 3,
        ("config", f"{LOCKED}/a.yaml"): 2,
        ("config", "--fit", f"{LOCKED}/in"): 3,
        ("train", f"{LOCKED}/run"): 2,
        ("probe", f"{LOCKED}/run"): 2,
        ("inspect", f"{LOCKED}/run"): 2,
        ("report", f"{LOCKED}/run"): 2,
        ("report", "out", "--out", f"{LOCKED}/r.html"): 2,
        ("pretrain", coopt.tiny, "--objective", "simclr", "--out", f"{LOCKED}/run"): 6,
        ("publish-shards", coopt.tiny, "--out", f"{LOCKED}/run"): 6,
        ("key", f"{LOCKED}/key"): 6,
        ("certificate", "localhost", "--out", f"{LOCKED}/tls"): 6,
        ("config", coopt.tiny, f"plugins={LOCKED}/a.py"): 2,
        ("config", "--fit", "out", "--out", f"{LOCKED}/a.yaml"): 6,
        ("probe", "out", f"data.root={LOCKED}/in"): 2,
    }
    found = {command: coopt(*command) for command in commands}
    assert {command: code for command, (code, _, _) in found.items()} == commands
    for result in found.values():
        said(result)
    assert not Path("out/dataset").exists()


def test_names_that_are_no_utf8_are_refused_before_the_work(coopt: Coopt) -> None:
    run = ("centralized", coopt.tiny, "--prior", "alpha", "--out")
    assert said(coopt(*run, STRANGE)) == (
        6,
        "error: --out=caf\\xe9 is no UTF-8 text; rename it, or give a link to it (ln -s)",
    )
    code, sentence = said(coopt(*run, "out", "data.source=imagefolder", f"data.root={STRANGE}"))
    assert code == 3 and "caf\\xe9 is no UTF-8 text" in sentence
    assert not Path("out").exists()


def test_without_a_home_the_variable_to_set_is_named(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "COOPT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    code, sentence = said(coopt.centralized("data.source=digits"))
    assert code == 6 and "set COOPT_CACHE, or HOME" in sentence
    code, sentence = said(coopt.centralized("data.root=~/photos"))
    assert code == 2 and "Set HOME" in sentence


IMAGES = ("data.source=imagefolder", "data.root=in", "data.limit=null", "shared.size=8")


@pytest.fixture
def torn(coopt: Coopt) -> Path:
    """An image of the test split that cannot be read."""
    for split, count in (("train", 24), ("val", 4)):
        tree(Path("in") / split, [f"{'ab'[k % 2]}/{k}.png" for k in range(count)])
    return write(Path("in/val/a/torn.png"), b"x")


def test_a_torn_test_image_is_found_before_the_work(coopt: Coopt, torn: Path) -> None:
    pretrain = ("pretrain", coopt.tiny, "--objective", "simclr", "--out", "pre")
    for found in (coopt.centralized(*IMAGES), coopt(*pretrain, *IMAGES)):
        code, sentence = said(found)
        assert code == 3 and "judged by the test images: image a/torn.png" in sentence
    assert not [*Path().rglob("*.pt"), *Path().rglob("blocks")]
    code, _, err = coopt.centralized(*IMAGES, "data.on_error=skip")
    assert code == 0 and "warning: 1 of 5 test images cannot be read, and are left out" in err
    for whole in Path("in/val").glob("*/?.png"):
        whole.write_bytes(b"x")
    code, sentence = said(coopt(*pretrain, *IMAGES, "data.on_error=skip"))
    assert code == 3 and "none of the 5 labeled test images can be read" in sentence


def test_a_torn_test_image_that_there_was_no_time_for_leaves_the_student(
    coopt: Coopt, torn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "SECONDS", -1)
    monkeypatch.setattr(doubts, "ROWS", 1)
    found = coopt.centralized(*IMAGES)
    assert "1 of 5 test images were decoded to see whether they can be read" in found[2]
    code, sentence = said(found)
    student = re.search(r"error: the student (\S+) is finished, but cannot be judged: ", sentence)
    assert code == 3 and student is not None and "a/torn.png" in sentence
    before = Path(student[1]).stat().st_mtime_ns
    torn.unlink()
    assert coopt.centralized(*IMAGES)[0] == 0
    assert Path(student[1]).stat().st_mtime_ns == before


class Ascii(io.TextIOWrapper):
    """A terminal that knows no other letters."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", errors="strict")

    def text(self) -> str:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode("ascii")


def test_a_terminal_without_utf8_gets_what_it_can_show(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Ascii(), Ascii()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(
        sys, "argv", ["coopt", "config", coopt.tiny, "data.root=/x/caf\u00e9", "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    shown = json.loads(out.text().splitlines()[-1])
    assert shown["data"]["root"] == os.path.realpath("/x/caf\u00e9")
    monkeypatch.setattr(sys, "argv", ["coopt", "config", "caf\u00e9.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "no configuration file caf\\xe9.yaml" in err.text()


def test_what_nobody_foresaw_is_a_sentence_that_names_the_log(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also outside of any command."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("halves of nothing")

    monkeypatch.setattr(cli, "app", fail)
    code, _, err = coopt("doctor")
    log = coopt.folder / "cache" / LOG
    assert (code, err) == (
        1,
        "error: this was not foreseen: ZeroDivisionError: halves of nothing; its traceback is in "
        f"{log}\n",
    )
    assert "in fail" in log.read_text()


def test_a_name_that_is_no_utf8_comes_back_from_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": STRANGE, "other": "caf\u00e9"})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"name": STRANGE, "other": "caf\u00e9"}


def test_a_plugin_that_ends_the_program_is_named(coopt: Coopt) -> None:
    """As a script does whose work is not under ``if __name__ == "__main__":``."""
    write(Path("mine.py"), b"import sys; sys.exit(0)")
    code, sentence = said(coopt("config", coopt.tiny, "plugins=mine.py"))
    assert code == 2 and "mine.py cannot be imported (SystemExit: 0)" in sentence


class Full(io.StringIO):
    """What takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["config"]])
def test_what_cannot_be_printed_is_said(
    command: list[str], coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["coopt", *command])
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    assert "cannot be printed (No space left on device): print it elsewhere" in err.getvalue()


def test_an_error_that_cannot_be_printed_has_its_exit_code(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["coopt", "config", "nothing"])
    monkeypatch.setattr(sys, "stderr", Full())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


def test_without_columns_an_error_is_shown(coopt: Coopt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    code, sentence = said(coopt("config", "nothing"))
    assert code == 2 and "no configuration named 'nothing'" in sentence


def test_what_the_host_refuses_is_named_wherever_that_is_found(
    coopt: Coopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/run/state")

    monkeypatch.setattr(cli, "app", fail)
    code, sentence = said(coopt("doctor"))
    assert code == 6
    assert sentence.startswith("error: /srv/run/state cannot be used: Permission denied; mend that")
