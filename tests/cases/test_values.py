"""KEY=VALUE and files: the key says what a value is, and what may be two things is refused."""

import os
from pathlib import Path
from typing import Any

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


def of_file(folder: Path, line: str) -> Any:
    """Return what a file with one setting, ``SECTION: {KEY: VALUE}``, sets."""
    path = folder / "mine.yaml"
    path.write_text(f"participants: [{{name: a, prior: 'trivial:8'}}]\n{line}\n")
    return load_config(str(path))


@pytest.mark.parametrize("text", ["010", "no", "on", "1_000", "1e3", "12:30", "0x1F", "2024-01-01"])
def test_a_text_is_the_same_in_a_file(text: str, tmp_path: Path) -> None:
    assert of_file(tmp_path, f"data: {{license: {text}}}").data.license == text
    assert load_config("digits", [f"data.license={text}"]).data.license == text
    assert of_file(tmp_path, f"data: {{root: {text}}}").data.root == os.path.realpath(text)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *[("data.limit", text) for text in ("010", "1_000", "1e3", "12:30", "0x1F", "yes", "'5'")],
        *[("student.lr", text) for text in ("01.5", "1_0.5", "1:30.5", ".inf", "on", "1e", "0o7")],
        *[("student.whiten", text) for text in ("yes", "on", "y", "1", "'true'")],
        ("student.epochs", "9" * 400),
        ("student.lr", "9" * 400),
    ],
)
def test_what_is_no_number_and_no_truth_is_refused_in_a_file_as_in_a_setting(
    key: str, text: str, tmp_path: Path
) -> None:
    section, _, name = key.partition(".")
    for refused in (
        lambda: of_file(tmp_path, f"{section}: {{{name}: {text}}}"),
        lambda: load_config("digits", [f"{key}={text}"]),
        lambda: load_config("digits", [f"{section}={{{name}: {text}}}"]),
    ):
        with pytest.raises(ConfigError, match=rf"{key}: .* is not allowed; allowed: (a |true)"):
            refused()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *[("lr: 1e-3", 1e-3), ("lr: 1", 1.0), ("lr: +2.5E-1", 0.25), ("whiten: True", True)],
        *[("image_size: null", None), ("image_size:", None), ("image_size: ~", None)],
        *[("init: null", None), ("init:", None), ("epochs: 7 # week", 7)],
    ],
)
def test_plain_values_of_a_file(line: str, value: object, tmp_path: Path) -> None:
    student = of_file(tmp_path, f"student:\n  {line}").student
    found = getattr(student, line.partition(":")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["~", "Null", "NULL"])
def test_nothing_or_a_folder_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf'data\.root: {text} is nothing in YAML.* or "{text}"'):
        of_file(tmp_path, f"data: {{root: {text}}}")
    with pytest.raises(ConfigError, match=r"data\.root: .* is nothing in YAML"):
        load_config("digits", [f"data={{root: {text}}}"])
    assert of_file(tmp_path, f'data: {{root: "{text}"}}').data.root


@pytest.mark.parametrize(
    "text",
    [
        "seed: 1\nseed: 2",
        "data: {root: a, root: b}",
        "- 1",
        "",
        "a: b: c",
        "seed: !!python/object:os.system {}",
        "seed: !!int x",
        "seed: !!int 010",
        "seed: !!bool x",
        "seed: !!timestamp x",
        'seed: !!int ""',
        "data: !!map [1]",
        "? [1]\n: 2",
        "x: &x [*x]",
        "[" * 3000,
        "---\nseed: 1\n---\nseed: 2",
        "seed: \x00",
        "seed: \ud800",
    ],
)
def test_a_file_that_says_nothing_clear_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_config(str(tmp_path / "mine.yaml"))


def test_anchors_and_merges_are_yaml(tmp_path: Path) -> None:
    text = "student: &s {epochs: 3, lr: 1e-2}\nstudent_: {<<: *s}\n"
    with pytest.raises(ConfigError, match="student_: no such key"):
        of_file(tmp_path, text)
    loaded = of_file(tmp_path, "student: {<<: {epochs: 3, lr: 1e-2}, lr: 5}")
    assert (loaded.student.epochs, loaded.student.lr) == (3, 5.0)


def test_an_index_is_of_plain_digits() -> None:
    with pytest.raises(ConfigError, match="there is no '²' in it"):
        load_config("digits", ["participants.²=a"])
