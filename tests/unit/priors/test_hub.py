from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from coopt_fl.core.errors import PriorError
from coopt_fl.priors import hub


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        if self.path.startswith("/nonsense"):
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        else:
            self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Refusing) as served:
        Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def silent(server: str) -> str:
    """Return a local address at which no server listens."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as closed:
        port = closed.server_port
    return f"http://127.0.0.1:{port}"


def test_a_host_that_answers_at_all_is_left_to_the_library(server: str, tmp_path: Path) -> None:
    hub.require_at(f"{server}/weights.pth", tmp_path)


def test_a_host_that_talks_nonsense_does_not_answer(server: str, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="cannot be reached"):
        hub.require_at(f"{server}/nonsense.pth", tmp_path)


def test_a_host_that_does_not_answer_says_what_to_copy(silent: str, tmp_path: Path) -> None:
    with pytest.raises(PriorError) as error:
        hub.require_at(f"{silent}/weights.pth", tmp_path)
    assert str(tmp_path / "weights.pth") in str(error.value)
    assert f"{silent}/weights.pth" in str(error.value)


def test_cached_weights_need_no_host(silent: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    hub.require_at(f"{silent}/weights.pth", tmp_path)


@pytest.mark.parametrize("offline", [True, False])
def test_offline_mode_of_the_hub_is_obeyed(
    offline: bool, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", server)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    if offline:
        with pytest.raises(PriorError, match="models--some--model"):
            hub.require_in_repository("some/model", "model.safetensors")
    else:
        hub.require_in_repository("some/model", "model.safetensors")
