"""KEY=VALUE: where a key is text, the value is what was typed."""

from pathlib import Path

import pytest

from coopt_fl.config.load import load_config
from coopt_fl.config.overrides import settings_of
from coopt_fl.core.errors import ConfigError


def root(text: str) -> str | None:
    return load_config("parquet", [f"data.root={text}"]).data.root


@pytest.mark.parametrize(
    "name",
    ["photos #2", "2024", "1e3", "yes", "a: b", "{a}", "[1]", "${HOME}", "a=b", "it's", "- x"],
)
def test_a_path_is_no_yaml(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert root(name) == str(tmp_path / name)
    assert root(f"{tmp_path}/{name}") == str(tmp_path / name)
    (setting,) = settings_of({"data.root": name})  # as a program gives it
    assert load_config("parquet", [setting]).data.root == str(tmp_path / name)


def test_home_null_and_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert root("~") == str(tmp_path)
    assert root("~/a #b") == str(tmp_path / "a #b")
    assert root('"null"') == root("'null'") == str(tmp_path / "null")
    for nothing in ("null", ""):
        with pytest.raises(ConfigError, match=r"data\.root: missing"):
            root(nothing)
        assert load_config("digits", [f"data.root={nothing}"]).data.root is None


def test_a_name_of_digits() -> None:
    assert load_config("digits", ["participants.0.name=2024"]).participants[0].name == "2024"


@pytest.mark.parametrize("setting", ["data.limit=500 #3", "seed=1 # one", "student.lr=1e-3 #"])
def test_numbers_have_no_comments(setting: str) -> None:
    key, _, text = setting.partition("=")
    with pytest.raises(ConfigError, match=f"{key}: {text!r} is not allowed"):
        load_config("digits", [setting])


@pytest.mark.parametrize("text", ["010", "0777", "1:00", "1_0", " 0b11", "-0x1F", "1_0.5", "01e3"])
def test_a_number_is_read_as_people_read_it_or_not_at_all(text: str) -> None:
    """YAML 1.1 has octal, binary and sexagesimal ones."""
    for key in ("student.epochs", "data.limit", "student.lr", "participants.0.weight"):
        with pytest.raises(ConfigError, match=rf"{key}: {text!r} is not allowed"):
            load_config("digits", [f"{key}={text}"])


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("1e-3", 1e-3), (".5", 0.5), ("+2.", 2), ("0.5E+1", 5), ("0", 0)]
)
def test_plain_numbers(text: str, value: float) -> None:
    assert load_config("digits", [f"student.weight_decay={text}"]).student.weight_decay == value


def test_a_plugin_with_a_strange_path(tmp_path: Path) -> None:
    plugin = tmp_path / "mine #1.py"
    plugin.write_text("")
    for setting in (f"plugins={plugin}", f'plugins=["{plugin}"]'):
        assert load_config("digits", [setting]).plugins == [str(plugin)]
