"""`coopt config --explain`: loading enforces what is documented for each key."""

import json
from typing import Any

import pytest

from coopt_fl.cli import main as cli
from coopt_fl.config.explain import explain
from coopt_fl.config.load import from_tree, tree_of
from coopt_fl.config.rules import all_keys
from coopt_fl.core.errors import ConfigError

ALL = explain()["keys"]


def refused(key: str, value: Any) -> bool:
    """Return whether loading refuses this value of the key by itself."""
    *sections, last = key.split(".")
    tree = part = tree_of("digits")
    for section in sections:
        part = part[int(section)] if section.isdigit() else part.setdefault(section, {})
    part[last] = value
    try:
        from_tree(tree, [], "digits")
    except ConfigError as error:
        return f"{key}: {value!r} is not allowed" in str(error)
    return False


def test_every_key_is_explained_and_every_section_says_what_it_is() -> None:
    found = explain()
    assert list(found["keys"]) == list(all_keys())
    assert all(key["meaning"] and key["type"] for key in found["keys"].values())
    assert {key["section"] for key in found["keys"].values()} == set(found["sections"])
    assert all(about.endswith(".") for about in found["sections"].values())
    json.dumps(found)


@pytest.mark.parametrize("key", [key for key in ALL if key != "plugins"])  # may be one text, too
def test_what_is_said_is_what_is_enforced(key: str) -> None:
    known = ALL[key]
    assert refused(key, None) != known["nullable"]
    assert refused(key, [1])
    if known["choices"]:
        assert not any(refused(key, choice) for choice in known["choices"])
        assert refused(key, "another")
    else:
        assert refused(key, "text") == (known["type"] != "text")
    for words in known["bounds"]:
        rule, bound = words.rsplit(" ", 1)
        number = float(bound) if known["type"] == "a number" else int(bound)
        assert refused(key, number) == (rule == "above")
        assert refused(key, number + (1 if rule == "at most" else -1))


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (["student.lr"], ["student.lr"]),
        (["student.lr=3", "seed"], ["seed", "student.lr"]),
        (["participants.7.prior"], ["participants.0.prior"]),
        (["shared", "shared.size"], ["shared.size"]),
    ],
)
def test_keys_and_sections_can_be_named(wanted: list[str], keys: list[str]) -> None:
    found = explain(wanted)
    assert list(found["keys"]) == keys
    assert list(found["sections"]) == list(dict.fromkeys(k.rpartition(".")[0] for k in keys))


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("student.learning_rate", "student"), ("studnet", "student"), ("dim", "targets.dim")],
)
def test_an_unknown_key_is_one_sentence_with_the_nearest(
    word: str,
    nearest: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["coopt", "config", "--explain", word])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    said = capsys.readouterr().err
    assert f"did you mean {nearest}" in said and len(said.splitlines()) == 1


def test_the_command_prints_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["coopt", "config", "--explain", "audit", "--json"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    out, table = capsys.readouterr()
    assert json.loads(out) == explain(["audit"])
    for word in ("audit.fraction", "at least 0", "at most 0.5", "0.01", "check each other"):
        assert word in table
