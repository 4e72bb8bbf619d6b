"""fal's real host names through a real CONNECT proxy with our own certificate: HTTPS_PROXY and SSL_CERT_FILE."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from domain.errors import Unavailable
from domain.registry import load_registry
from providers.fal.vendor import FalVendor
from providers.web import open_http
from tests.contract.fal_standin import ACCEPTED, KEY, STILL, ZIP, Answer, StandIn, fal_stand_in, sent

HOSTS = ("queue.fal.run", "rest.fal.ai", "v3.fal.media")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One self-signed certificate for fal's names, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fal stand-in")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "fal.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + signed.public_bytes(pem))
    return path


class ConnectProxy(ThreadingHTTPServer):
    """Answers CONNECT by tunnelling to one port of this machine, whatever name was asked for."""

    daemon_threads = True

    def __init__(self, tunnel_to: int, *, refuses: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.tunnel_to = tunnel_to
        self.refuses = refuses
        self.asked: list[str] = []


class _Tunnel(BaseHTTPRequestHandler):
    server: ConnectProxy

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        if self.server.refuses:
            self.send_error(403)
            return
        with socket.create_connection(("127.0.0.1", self.server.tunnel_to)) as inner:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(inner, self.connection), daemon=True)
            back.start()
            _pump(self.connection, inner)
            back.join()
        self.close_connection = True

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(502)

    def log_message(self, *args: object) -> None:
        """Quiet."""


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy_to(port: int, *, refuses: bool = False) -> Iterator[ConnectProxy]:
    proxy = ConnectProxy(port, refuses=refuses)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.fixture
def fal_over_tls(certificate: Path) -> Iterator[StandIn]:
    with fal_stand_in() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server


def test_submit_and_upload_reach_the_real_host_names_through_the_environments_proxy(
    fal_over_tls: StandIn, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fal_over_tls.on(f"POST queue.fal.run/{STILL.endpoint}", Answer(200, ACCEPTED))
    token = {
        "token": "t",
        "token_type": "Bearer",
        "base_url": "https://v3.fal.media",
        "expires_at": "2999-01-01T00:00Z",
    }
    fal_over_tls.on("POST rest.fal.ai/storage/auth/token", Answer(200, token))
    fal_over_tls.on("POST v3.fal.media/files/upload", Answer(200, {"access_url": "https://v3.fal.media/f"}))
    path = tmp_path / "set.zip"
    path.write_bytes(b"zip")
    with proxy_to(fal_over_tls.server_address[1]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with open_http() as http:
            vendor = FalVendor(http, SecretStr(KEY), load_registry())
            assert vendor.submit(STILL, sent()).request_id == "job-1"
            assert vendor.upload(path, ZIP) == "https://v3.fal.media/f"
    assert proxy.asked == ["queue.fal.run:443", "rest.fal.ai:443", "v3.fal.media:443"]


def test_a_certificate_that_is_not_trusted_means_definitely_not_sent(
    fal_over_tls: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_to(fal_over_tls.server_address[1]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        with open_http() as http, pytest.raises(Unavailable, match="was not sent"):
            FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, sent())
    assert fal_over_tls.seen == []


def test_a_proxy_that_refuses_means_definitely_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_to(0, refuses=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        with open_http() as http, pytest.raises(Unavailable, match=r"was not sent.*403"):
            FalVendor(http, SecretStr(KEY), load_registry()).submit(STILL, sent())
    assert proxy.asked == ["queue.fal.run:443"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_asked_through_the_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fal_stand_in() as here, proxy_to(0) as proxy:
        port = here.server_address[1]
        here.on(f"GET {host}:{port}/", Answer(200, {"here": True}))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        with open_http() as http:
            assert http.get(f"http://{host}:{port}/").json() == {"here": True}
            assert http.get("http://elsewhere.example/").status_code == 502
    assert proxy.asked == ["http://elsewhere.example/"]
