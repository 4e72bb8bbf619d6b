"""Files to and from fal: uploads through fal's own package, downloads by our own resuming stream.

Uploads are free and harmless to repeat, so the package's retries and its fallback to a second store are welcome here.
Its hidden HTTP clients are replaced by ours, so that proxy, certificates, timeouts and the sandbox hold for it too
(fal-client 1.0.3 opens three: `_client`, the token's, and `_get_cdn_client`; read 2026-11).
"""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx
from fal_client.auth import AuthCredentials
from fal_client.client import USER_AGENT, CDNToken, CDNTokenManager, FalClientError, FalClientHTTPError, SyncClient

from domain.errors import OnModelError, Rejected, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.fal.client import REST_URL, FalClient, refusal
from providers.resuming import FileWords, fetch_resuming, open_public
from providers.vendor_words import json_of

MULTIPART_FROM_BYTES = 100 * 1024 * 1024
"""Above this fal-client uploads in parts; it reads a file in parts only when it is given a path."""

UPLOAD_TIMEOUT = httpx.Timeout(connect=15.0, read=120.0, write=120.0, pool=120.0)


class FalFiles:
    """`FileHost` at fal's file store."""

    def __init__(self, client: FalClient) -> None:
        self._client = client
        self._package = _Package(client)

    def upload(self, path: Path, ref: BlobRef) -> str:
        """A public address at fal's store. Up to 100 MiB are held in memory, larger files go up in parts."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", ref.file_name).lstrip(".") or "file"
        try:
            if path.stat().st_size <= MULTIPART_FROM_BYTES:
                url = self._package.upload(path.read_bytes(), ref.media_type, file_name=name)
            else:
                url = self._upload_in_parts(path, name)
        except OnModelError:
            raise
        except FalClientHTTPError as error:
            raise self._upload_error(name, error.response) from error
        except (httpx.HTTPError, FalClientError, KeyError, TypeError, ValueError) as error:
            # KeyError and its like: the package reads answers without checking them.
            raise Unavailable(
                f"{name} could not be uploaded to fal ({self._client.failure(error)}); it can be tried again."
            ) from error
        if not isinstance(url, str) or not url.startswith("https://"):
            raise Unavailable(f"fal took {name} but gave no https address for it; it can be uploaded again.")
        return url

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Stream the file into a seekable stream, from where that stands; the key is never sent along.

        A broken connection is resumed by range up to three times, and the length is compared with what was promised.
        """
        words = FileWords(name=file.file_name or file.role, place="fal", store="fal's store")
        fetch_resuming(partial(self._open, file.url, words), into, words, self._client.failure)

    def _open(self, url: str, words: FileWords, offset: int) -> httpx.Response:
        return open_public(self._client.http, url, offset, words, lifetime="it is deleted there after a while")

    def _upload_in_parts(self, path: Path, name: str) -> str:
        # The package takes name and type from the path, and our store's files are named by their digest.
        with tempfile.TemporaryDirectory(prefix="onmodel-upload-") as folder:
            link = Path(folder) / name
            link.symlink_to(path.resolve())
            return self._package.upload_file(link)

    def _upload_error(self, name: str, response: httpx.Response) -> OnModelError:
        account = self._client.account_error(response, f"uploading {name}")
        if account is not None:
            return account
        said = self._client.words(response)
        if 400 <= said.status < 500 and said.status not in (408, 409):
            return refusal(said, f"the upload of {name}", Rejected)
        return Unavailable(f"fal's store failed to take {name} ({said.status}: {said.text}); it can be tried again.")


class _Through(httpx.BaseTransport):
    """Sends through our one client whatever another client made; what had no timeout gets ours.

    A broken connection or a timeout is `Unavailable` at once: fal-client would try ten times, each to its timeout, and
    knows none of our errors, so this sends it straight to its second store and then back to us.
    """

    def __init__(self, client: FalClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        limits, ours = request.extensions.get("timeout") or {}, UPLOAD_TIMEOUT.as_dict()
        request.extensions["timeout"] = {name: limits.get(name) or ours[name] for name in ours}
        host = request.url.host
        try:
            return self._client.http.send(request, stream=True)
        except httpx.TransportError as error:
            raise Unavailable(
                f"fal's store {host} could not be reached ({self._client.failure(error)}); try again later."
            ) from error


def _through(client: FalClient, headers: dict[str, str]) -> httpx.Client:
    # trust_env off: otherwise a proxy in the environment would take the request past our client.
    return httpx.Client(transport=_Through(client), headers=headers, trust_env=False, timeout=UPLOAD_TIMEOUT)


class _Package(SyncClient):
    """fal-client with its three HTTP clients taken from us; `_client` carries no key, calls that need it add it."""

    def __init__(self, client: FalClient) -> None:
        super().__init__(key=client.secret)
        # The parent is a frozen dataclass with cached properties: seeding their cache is its one opening.
        self.__dict__["_ours"] = client
        self.__dict__["_client"] = _through(client, {"User-Agent": USER_AGENT})
        self.__dict__["_token_manager"] = _TokenManager(client, self._auth)

    def _get_cdn_client(self) -> httpx.Client:
        token = self._token_manager.get_token()
        headers = {"Authorization": f"{token.token_type} {token.token}", "User-Agent": USER_AGENT}
        return _through(self.__dict__["_ours"], headers)


class _TokenManager(CDNTokenManager):
    """fal-client's upload token, fetched by us so that a refusal becomes one of our errors."""

    def __init__(self, client: FalClient, auth: AuthCredentials) -> None:
        super().__init__(auth)
        self._ours = client

    def _refresh_token(self) -> CDNToken:
        response = self._ours.look("POST", f"{REST_URL}/storage/auth/token?storage_type=fal-cdn-v3", content=b"{}")
        account = self._ours.account_error(response, "asking for an upload token")
        if account is not None:
            raise account
        answer = json_of(response)
        if not response.is_success or not isinstance(answer, dict):
            said = self._ours.words(response)
            raise Unavailable(f"fal gave no upload token ({said.status}: {said.text}); it can be asked again.")
        expires_at = datetime.fromisoformat(answer["expires_at"])
        return CDNToken(
            token=answer["token"],
            token_type=answer["token_type"],
            base_upload_url=answer["base_url"],
            expires_at=expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC),
        )
