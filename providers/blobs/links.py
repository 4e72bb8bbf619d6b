"""Links to a local blob store: what they say, how they are signed and how they are read again.

A link names its method, digest, media type and end, and is signed over all four with the store's own key, so that
nobody can turn a link to read into one to write, or one file into another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from domain.errors import BadInput, NotConfigured
from domain.records import Record
from providers.blobs.naming import is_digest

_KEY_BYTES = 32


class LinkRefused(BadInput):
    """The link is not ours, not for this, or over. Answered with 403."""


class Link(Record):
    """What a link allows: one method on one file until a moment (seconds since 1970). A GET link serves HEAD too."""

    method: str
    sha256: str
    expires_at: int
    media_type: str = ""

    def signature(self, key: bytes) -> str:
        """HMAC-SHA256 over every field, as hex."""
        # As JSON, so that no field can move the border to the next.
        text = json.dumps(["onmodel-link-1", self.method, self.sha256, self.expires_at, self.media_type])
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def target(self, key: bytes) -> str:
        """Path and query of the link."""
        fields = {"expires": str(self.expires_at), "type": self.media_type, "signature": self.signature(key)}
        return f"/{self.sha256}?{urlencode({name: value for name, value in fields.items() if value})}"


def read_link(method: str, target: str, key: bytes, now: float) -> Link:
    """The link that this request shows; `LinkRefused` unless it was signed with the key and is not over."""
    parts = urlsplit(target)
    fields = {name: values[0] for name, values in parse_qs(parts.query).items() if len(values) == 1}
    sha256, expires, signature = parts.path.removeprefix("/"), fields.get("expires", ""), fields.get("signature", "")
    if not (is_digest(sha256) and re.fullmatch(r"-?[0-9]{1,15}", expires)):
        raise LinkRefused("This is no link of this store: use one exactly as it was given.")
    signed_method = "GET" if method == "HEAD" else method
    link = Link(method=signed_method, sha256=sha256, expires_at=int(expires), media_type=fields.get("type", ""))
    if not hmac.compare_digest(link.signature(key).encode(), signature.encode()):
        raise LinkRefused(f"This link's signature is not valid for {method}: use the link exactly as it was given.")
    if now >= link.expires_at:
        raise LinkRefused("This link has expired: ask for a new one.")
    return link


def signing_key(root: Path) -> bytes:
    """The store's key, made on first use by whichever process comes first (file mode 0600)."""
    path = root / "links.key"
    try:
        if not path.exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = root / f"links.key.{secrets.token_hex(8)}"
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):
                path.hardlink_to(aside)  # never replaces a key that another process has just made
            aside.unlink()
        key = path.read_bytes()
    except OSError as error:
        raise NotConfigured(
            f"The key that signs links, {path}, cannot be used ({error.strerror}): "
            "make the folder readable and writable."
        ) from error
    if len(key) != _KEY_BYTES:
        raise NotConfigured(f"The key that signs links, {path}, is damaged ({len(key)} bytes): delete that file.")
    return key
