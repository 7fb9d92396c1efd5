"""Ray: what it inherits does not stop it, and advice follows the cause."""

import os
import pwd
from pathlib import Path

import pytest
import ray

from coopt_fl.config.load import load_config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.federation import backend, simulation


def test_a_long_tmpdir_does_not_reach_rays_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    config = load_config("digits")
    for folder, chosen in {"/tmp": None, "/tmp/" + "x" * 32: "/tmp/ray"}.items():
        monkeypatch.setenv("TMPDIR", folder)
        assert backend.backend(config)["init_args"].get("_temp_dir") == chosen
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert "_temp_dir" not in backend.backend(config)["init_args"]


def test_without_a_home_flower_gets_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("COOPT_CACHE", "/c")
    with simulation._quiet():
        assert "HOME" not in os.environ
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with simulation._quiet():
        assert os.environ["HOME"] == "/c"
    assert "HOME" not in os.environ


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), "Set RAY_TMPDIR to a folder"),
        (OSError(28, "No space left on device"), "Free some space there"),
        (PermissionError(13, "Permission denied"), "that you can write to"),
        (Exception("The current node timed out during startup."), "very busy"),
        (TimeoutError(), "very busy"),
        (MemoryError("Out of memory"), "Free some memory"),
        (ValueError("something else"), "something else Its log is in /x/session_latest/logs"),
    ],
)
def test_the_advice_follows_the_cause(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_TMPDIR", "/x")
    with pytest.raises(ParticipantError) as caught:
        backend._start_ray({})
    assert advice in str(caught.value).replace("/x/ray/", "/x/")
    busy = "busy" in str(caught.value)
    assert busy == ("busy" in advice)
