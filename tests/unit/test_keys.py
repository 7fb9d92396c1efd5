"""Certificates against OpenSSL's strictest verification, key pairs against Flower's own readers."""

import argparse
import os
import resource
import signal
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from coopt_fl.cli import main as cli
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.ops import certificates

HOSTS = ["platform.example.org", "10.0.0.7", "fd00::7"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a CA and a certificate for HOSTS."""
    certificates.make_certificate(HOSTS, tmp_path / "tls")
    return tmp_path / "tls"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let new files be readable by everyone unless the code says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("host", [*HOSTS, "PLATFORM.example.org", "localhost", "127.0.0.1"])
def test_a_client_that_has_the_ca_trusts_every_name(folder: Path, host: str) -> None:
    _handshake(folder, folder / "ca.crt", host)


@pytest.mark.parametrize("host", ["example.org", "other.example.org", "10.0.0.8", "127.0.0.2"])
def test_no_other_name_is_trusted(folder: Path, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        _handshake(folder, folder / "ca.crt", host)


def test_another_ca_of_the_same_name_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    certificates.make_certificate(HOSTS, tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        _handshake(folder, tmp_path / "other" / "ca.crt", HOSTS[0])


def test_the_same_command_renews_the_certificate_and_nothing_else(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    made = certificates.make_certificate(["moved.example.org"], folder)
    changed = {name for name, old in before.items() if (folder / name).read_bytes() != old}
    assert (changed, made["ca_is_new"]) == ({"server.pem"}, False)
    assert {file.name for file in folder.iterdir()} == set(before)
    _handshake(folder, folder / "ca.crt", "moved.example.org")


def test_a_lost_server_key_is_replaced_by_the_same_ca(folder: Path) -> None:
    (folder / "server.key").unlink()
    certificates.make_certificate(HOSTS, folder)
    _handshake(folder, folder / "ca.crt", HOSTS[0])


def test_only_the_owner_reads_private_keys(tmp_path: Path, open_umask: None) -> None:
    certificates.make_certificate(HOSTS, tmp_path)
    certificates.make_key_pair(tmp_path / "alpha")
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "ca.key",
        "server.key",
        "alpha",
    }


def test_validity_is_what_the_help_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["coopt", "certificate", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    said = " ".join(capsys.readouterr().out.split())
    assert "for 10 years, the certificate for 397 days" in said
    assert _days_left(folder / "ca.crt") == pytest.approx(10 * 365, abs=1)
    assert _days_left(folder / "server.pem") == pytest.approx(397, abs=1)


def test_a_certificate_does_not_outlive_its_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CA_DAYS", 5)
    certificates.make_certificate(HOSTS, tmp_path)
    assert _days_left(tmp_path / "server.pem") == pytest.approx(5, abs=1)


def test_an_expired_ca_issues_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CA_DAYS", 0)
    certificates.make_certificate(HOSTS, tmp_path)
    before = (tmp_path / "server.pem").read_bytes()
    with pytest.raises(ConfigError, match="expired"):
        certificates.make_certificate(HOSTS, tmp_path)
    assert (tmp_path / "server.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, damage) for file in ("ca.crt", "ca.key") for damage in ("missing", "foreign")),
        *((file, "garbage") for file in ("ca.crt", "ca.key", "server.key")),
    ],
)
def test_a_broken_set_of_files_is_refused(
    folder: Path, tmp_path: Path, file: str, damage: str
) -> None:
    certificates.make_certificate(HOSTS, tmp_path / "other")
    foreign = (tmp_path / "other" / file).read_bytes()
    (folder / file).unlink()
    if damage != "missing":
        (folder / file).write_bytes(b"-----BEGIN" if damage == "garbage" else foreign)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="restore it"):
        certificates.make_certificate(HOSTS, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "host", ["", "https://a.org", "a.org:443", "a b", "a..b", "-a.org", "exämple.org", "a" * 64]
)
def test_what_is_no_host_is_refused_before_anything_is_made(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="neither a host name nor an IP address"):
        certificates.make_certificate(["good.org", host], tmp_path / "tls")
    assert not (tmp_path / "tls").exists()


def test_flower_reads_both_halves_of_a_key_pair(tmp_path: Path) -> None:
    certificates.make_key_pair(tmp_path / "new" / "alpha")
    arguments = argparse.Namespace(
        auth_supernode_private_key=str(tmp_path / "new" / "alpha"), auth_supernode_public_key=None
    )
    pair = _try_setup_client_authentication(arguments)
    assert pair is not None
    assert pair[0].curve.name == "secp384r1"
    registered = try_load_public_key(tmp_path / "new" / "alpha.pub")
    assert registered == public_key_to_bytes(pair[1])


@pytest.mark.parametrize("exists", ["alpha", "alpha.pub"])
def test_a_key_pair_is_never_overwritten(tmp_path: Path, exists: str) -> None:
    (tmp_path / exists).write_text("mine")
    with pytest.raises(ConfigError, match=f"{exists} exists"):
        certificates.make_key_pair(tmp_path / "alpha")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(exists, "mine")]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for make in (
        lambda: certificates.make_key_pair(tmp_path / "file" / "alpha"),
        lambda: certificates.make_certificate(HOSTS, tmp_path / "file"),
    ):
        with pytest.raises(OutputError, match="file"):
            make()


def test_a_full_disk_leaves_no_part_of_a_key(tmp_path: Path) -> None:
    """The same command succeeds once there is room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OutputError, match="alpha"):
            certificates.make_key_pair(tmp_path / "alpha")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    certificates.make_key_pair(tmp_path / "alpha")


def _handshake(folder: Path, ca: Path, host: str) -> None:
    """Do a TLS handshake in memory, the client as strict as Python 3.13's default."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=host)
    there = server.wrap_bio(up, down, server_side=True)
    for side in (here, there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert here.version() == "TLSv1.3"


def _days_left(path: Path) -> float:
    until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return (until - datetime.now(UTC)).total_seconds() / 86400
