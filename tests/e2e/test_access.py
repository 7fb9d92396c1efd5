"""Who gets through docs/deployment/nginx.conf to a SuperLink, who past it, and who does not."""

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.runtime.runtime_http_client import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from tests.e2e.conftest import SECONDS
from tests.e2e.hosts import DOCS
from tests.e2e.site import DIRECT, ECHO, PYPROJECT, REFUSED, Site, opened

pytestmark = pytest.mark.xdist_group("site")

PATHS = [path for _, path in PROTOBUF_REQUEST_TYPES]
FLEET = {path for path in PATHS if path.startswith("/v1/fleet/")}
OTHERS = sorted({*PATHS, "/", "/health", "/docs", "/openapi.json", "/v1/runtime/responses"} - FLEET)
TARGET = "/v1/control/list-runs"

TRICKS = [
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/./v1/control/list-runs",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/get-run/../../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%252e%252e/control/list-runs",
    "/v1/fleet/..;/control/list-runs",
    "/v1/fleet/..\\control\\list-runs",
    "/v1/fleet/get-run%00/../../control/list-runs",
    "/v1/fleet/get-run%0a/../../control/list-runs",
    "/v1/fleet/get-run?/../../control/list-runs",
    "/v1/fleet/get-run#/../../control/list-runs",
    "/%76%31/%63ontrol/list-runs",
    "/V1/CONTROL/LIST-RUNS",
    "https://localhost/v1/control/list-runs",
    "https://localhost/v1/fleet/../control/list-runs",
    "*",
]
"""Request targets by which a proxy and what is behind it have been known to disagree."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests here."""
    with opened(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.mark.nginx
def test_a_registered_supernode_takes_part_in_a_run(site: Site) -> None:
    app = site.hosts.folder / "echo"
    app.mkdir()
    (app / "echo.py").write_text(ECHO)
    (app / "pyproject.toml").write_text(PYPROJECT)
    done = site.hosts.bash(f"flwr run {app} platform --stream --run-config \"out='{app}/out'\"")
    assert (app / "out").exists(), done.stdout + done.stderr
    assert (app / "out").read_text() == "1 node, right: True"
    log = (site.hosts.folder / "nginx" / "access.log").read_text()
    went = set(re.findall(r'"POST /v1/fleet/(\S+) HTTP/1.1" 200', log))
    used = "activate-node pull-messages get-run get-fab pull-object push-messages push-object"
    assert set(used.split()) <= went


@pytest.mark.nginx
@pytest.mark.parametrize("caller", REFUSED)
def test_a_supernode_is_refused_that_has(site: Site, caller: str) -> None:
    refused(site, caller, site.callers[caller], site.address)


@pytest.mark.parametrize("neighbour", DIRECT)
def test_the_superlink_itself_refuses_one_that_has(site: Site, neighbour: str) -> None:
    refused(site, neighbour, site.neighbours[neighbour], site.superlink)


def refused(site: Site, name: str, caller: subprocess.Popen[str], address: str) -> None:
    """It ends by itself, says why, and was never let in."""
    assert caller.wait(SECONDS) == 1
    said = (site.hosts.folder / f"{name} at {address}.log").read_text()
    assert REFUSED[name] in said
    assert "SuperNode ID" not in said


def test_the_superlink_itself_does_not_answer_plain_text(site: Site) -> None:
    plain = FleetHttpClient.from_server_address(site.superlink, True, None, [])
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected without sending a response"):
        plain.PullMessages(PullMessagesRequest())


@pytest.mark.nginx
def test_flowers_own_clients_cannot_control_or_run_anything(site: Site) -> None:
    there: tuple[str, bool, bytes, tuple[()]] = (site.address, False, site.ca, ())
    calls: list[tuple[Callable[..., object], object]] = [
        (ControlHttpClient.from_server_address(*there).ListRuns, ListRunsRequest()),
        (ControlHttpClient.from_server_address(*there).StartRun, StartRunRequest()),
        (RuntimeHttpClient.from_server_address(*there).AcquireTask, AcquireTaskRequest()),
    ]
    for call, request in calls:
        with pytest.raises(httpx.HTTPStatusError, match="403 Forbidden"):
            call(request)
    inside = ControlHttpClient.from_server_address(site.superlink, False, site.ca, ())
    inside.ListRuns(ListRunsRequest())


@pytest.mark.nginx
def test_every_path_of_the_superlink_but_the_fleets_is_forbidden(site: Site) -> None:
    for path in OTHERS:
        for method in ("GET", "POST"):
            assert _statuses(site, f"{method} {path}") == [403], path
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert _statuses(site, f"{method} /v1/fleet/pull-messages") == [403], method
    assert site.passed <= FLEET


@pytest.mark.nginx
@pytest.mark.parametrize("target", TRICKS)
def test_no_way_of_writing_a_path_leads_around(site: Site, target: str) -> None:
    (status,) = _statuses(site, f"POST {target}")
    assert status in (400, 401, 403)
    assert site.passed <= FLEET


@pytest.mark.nginx
@pytest.mark.parametrize(
    "framing", ["Content-Length: 0", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
)
def test_a_request_behind_a_request_is_not_passed_on(site: Site, framing: str) -> None:
    body = "" if framing.endswith(" 0") else "0\r\n\r\n"
    first = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{body}"
    statuses = _statuses(site, f"{first}POST {TARGET}")
    assert statuses[0] in (400, 415)
    assert statuses[1:] in ([], [403])
    assert site.passed <= FLEET


@pytest.mark.nginx
def test_a_body_is_bounded_before_the_superlink_holds_it(site: Site) -> None:
    for megabytes, status in ((15, 415), (17, 413)):
        with httpx.Client(verify=_trusting(site.ca)) as client:
            url = f"https://{site.address}/v1/fleet/push-object"
            answer = client.post(url, content=bytes(megabytes * 2**20))
        assert answer.status_code == status


@pytest.mark.nginx
def test_a_registered_key_speaks_for_no_other_node(site: Site) -> None:
    beta = site.hosts.participant("beta")
    beta.section(1)
    beta.section(4)
    site.hosts.of("beta").section(5)
    folder = site.hosts.folder
    private = load_ssh_private_key((folder / "beta" / "beta.key").read_bytes(), None)
    signed = NodeAuthHttpInterceptor(private, private.public_key())
    client = FleetHttpClient.from_server_address(site.address, False, site.ca, [signed])
    own, other = (
        int(re.findall(r'"node-id": "?(\d+)', (folder / "etc" / f"{name}.node").read_text())[0])
        for name in ("beta", "alpha")
    )
    asked = client.PullMessages(PullMessagesRequest(node=Node(node_id=own)))
    assert asked == PullMessagesResponse()
    with pytest.raises(httpx.HTTPStatusError, match="401 Unauthorized"):
        client.PullMessages(PullMessagesRequest(node=Node(node_id=other)))


@pytest.mark.parametrize("unit", ["coopt-superlink", "coopt-superexec", "coopt-supernode@alpha"])
def test_nothing_of_flowers_listens_to_the_world(site: Site, unit: str) -> None:
    service = psutil.Process(int((site.hosts.folder / "systemd" / f"{unit}.pid").read_text()))
    expected = set() if unit == "coopt-superexec" else {"127.0.0.1"}
    until = time.monotonic() + SECONDS
    while (listening := _listening(service)) != expected and time.monotonic() < until:
        assert listening <= expected  # it may only just have been started
        time.sleep(1)
    assert listening == expected


def test_nginx_knows_every_call_of_the_fleet_api() -> None:
    (names,) = re.findall(r"\^/v1/fleet/\((.*)\)\$", (DOCS / "deployment/nginx.conf").read_text())
    assert {f"/v1/fleet/{name}" for name in names.split("|")} == FLEET


def _listening(service: psutil.Process) -> set[str]:
    """Return the addresses on which a service and its children listen."""
    found = set[str]()
    for process in (service, *service.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # what they start may end at any time
            connections = process.net_connections()
            found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found


def _trusting(ca: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.decode())


def _statuses(site: Site, request: str) -> list[int]:
    """Send the beginning of a request as it is, end it properly; return every answer's status."""
    rest = " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/protobuf\r\n"
    text = f"{request}{rest}Content-Length: 0\r\nConnection: close\r\n\r\n"
    host, _, port = site.address.rpartition(":")
    raw = socket.create_connection((host, int(port)), timeout=30)
    with _trusting(site.ca).wrap_socket(raw, server_hostname="localhost") as connection:
        connection.sendall(text.encode())
        answer = b""
        while received := connection.recv(65536):
            answer += received
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]
