"""For programs left unchanged: a throw-away CA, and a loopback CONNECT proxy that answers under fal's own names.

    HTTPS_PROXY=http://127.0.0.1:PORT  SSL_CERT_FILE=HOME/sandbox/tls/ca.pem  FAL_KEY=anything  python your_program.py

The CA's key is never written down: it signs one certificate and is forgotten, so that the folder cannot be used to
sign another. Only fal's names are tunnelled; a CONNECT to any other host is refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from providers.sandbox.listener import Connection, Listener
from providers.sandbox.wire import FAL_HOSTS

VALID_DAYS = 30
RENEW_DAYS = 7


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: whom to trust, and what the listener shows (certificate and key, 0600)."""

    ca_file: Path
    leaf_file: Path


def ensure_certificate(folder: Path, now: datetime | None = None) -> Certificate:
    """The certificate in `folder`, made anew when it is missing or ends within a week of `now`. Safe to repeat."""
    now = now or datetime.now(UTC)
    found = Certificate(folder / "ca.pem", folder / "leaf.pem")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _days_left(found, now) < RENEW_DAYS:
        _write_certificate(found, now)
    return found


def _days_left(certificate: Certificate, now: datetime) -> float:
    try:
        leaf = x509.load_pem_x509_certificate(certificate.leaf_file.read_bytes())
        x509.load_pem_x509_certificate(certificate.ca_file.read_bytes())
    except (FileNotFoundError, ValueError):
        return 0
    return (leaf.not_valid_after_utc - now) / timedelta(days=1)


def _write_certificate(target: Certificate, now: datetime) -> None:
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OnModel sandbox, not for real use")])
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "queue.fal.run")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _draft(ca_name, ca_name, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted({*FAL_HOSTS, "localhost"})]
    names.append(x509.IPAddress(IPv4Address("127.0.0.1")))
    leaf = (
        _draft(leaf_name, ca_name, leaf_key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_pem = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(target.leaf_file, leaf.public_bytes(pem) + key_pem)
    _write_private(target.ca_file, ca.public_bytes(pem))


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    draft.rename(path)


class FalProxy:
    """A CONNECT proxy whose every tunnel ends, in TLS, at the sandbox's own listener."""

    def __init__(self, listener: Listener, certificate: Certificate) -> None:
        self._listener = listener
        self.ca_file = certificate.ca_file
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate.leaf_file)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                return  # closed by stop()
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        with connection:
            connection.settimeout(30)
            try:
                host = _read_connect(connection)
                if host not in FAL_HOSTS:
                    text = f"The sandbox's proxy leads to fal's hosts only, not to {host or 'plain http addresses'}."
                    _refuse(connection, text)
                    return
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    self._listener.hold(secure)
                    try:
                        Connection(secure, address, self._listener)
                    finally:
                        self._listener.release(secure)
            except OSError:
                return  # the client left, or does not trust our CA; its own message says so


def _read_connect(connection: socket.socket) -> str | None:
    """The host that a CONNECT asks for; None for any other request."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(4096)
        if not data or len(head) > 65536:
            return None
        head += data
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or words[0] != "CONNECT":
        return None
    return words[1].rpartition(":")[0].lower()


def _refuse(connection: socket.socket, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
