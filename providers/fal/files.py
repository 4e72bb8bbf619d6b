"""Files to and from fal: uploads through fal's own package, downloads by our own resuming stream.

Uploads are free and harmless to repeat, so the package's retries and its fallback to a second store are welcome here.
Its hidden HTTP clients are replaced by ours, so that proxy, certificates, timeouts and the sandbox hold for it too
(fal-client 1.0.3 opens three: `_client`, the token's, and `_get_cdn_client`; read 2026-11).
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import httpx
from fal_client.auth import AuthCredentials
from fal_client.client import USER_AGENT, CDNToken, CDNTokenManager, FalClientError, FalClientHTTPError, SyncClient

from domain.errors import JobFailed, OnModelError, Rejected, ResultExpired, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.fal.client import REST_URL, FalClient, json_of, refusal

MULTIPART_FROM_BYTES = 100 * 1024 * 1024
"""Above this fal-client uploads in parts; it reads a file in parts only when it is given a path."""

UPLOAD_TIMEOUT = httpx.Timeout(connect=15.0, read=120.0, write=120.0, pool=120.0)
MAX_RESUMES = 3
MAX_REDIRECTS = 5


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
        name = file.file_name or file.role
        start, got, promised, seen = into.tell(), 0, None, ""
        for _ in range(1 + MAX_RESUMES):
            try:
                with contextlib.closing(self._open(file.url, got, name)) as response:
                    if response.status_code == 416:
                        if promised in (None, got):
                            return  # nothing is left beyond what we have
                        break
                    got = self._place_of(response, got, into, start)
                    promised = _promised_bytes(response, got) or promised
                    # No chunk size: httpx would hold bytes back, and lose them when the connection breaks.
                    for chunk in response.iter_raw():
                        into.write(chunk)
                        got += len(chunk)
                if promised is None or got == promised:
                    return
                seen = f"{got} of {promised} bytes came"
            except httpx.HTTPError as error:
                got = into.tell() - start
                seen = f"{self._client.failure(error)} after {got} bytes"
        raise Unavailable(f"The file {name} could not be fetched whole from fal ({seen}); it can be tried again.")

    def _open(self, url: str, offset: int, name: str) -> httpx.Response:
        """A checked, still unread answer to GET from `offset` on; redirects are followed to checked addresses only."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        for _ in range(1 + MAX_REDIRECTS):
            _check_public_https(url, name)
            request = self._client.http.build_request("GET", url, headers=headers)
            response = self._client.http.send(request, stream=True, follow_redirects=False)
            if response.next_request is None:
                break
            response.close()
            url = str(response.next_request.url)
        code = response.status_code
        if response.is_success or (code == 416 and offset):
            if response.headers.get("content-encoding", "identity") == "identity":
                return response
            response.close()
            raise Unavailable(f"fal's store sent {name} compressed though asked not to; it can be tried again.")
        response.close()
        if code in (404, 410):
            raise ResultExpired(
                f"The file {name} is gone from fal's store ({code}): it is deleted there after a while."
            )
        raise Unavailable(f"fal's store answered {code} for the file {name}; it can be tried again.")

    def _place_of(self, response: httpx.Response, offset: int, into: BinaryIO, start: int) -> int:
        """Where the answer's bytes belong: at the offset we asked for, or at the start when the range was ignored."""
        if response.status_code == 206:
            match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
            if match is None or int(match[1]) != offset:
                raise Unavailable("fal's store resumed a file at another place than asked; it can be tried again.")
            return offset
        into.seek(start)
        into.truncate()
        return 0

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


def _promised_bytes(response: httpx.Response, offset: int) -> int | None:
    """Length of the whole file, from this answer's own part of it; None when the answer does not say."""
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def _check_public_https(url: str, name: str) -> None:
    """The address stands in a stranger's answer: only https to a public host is followed."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise JobFailed(f"fal gave no valid address for the file {name}: it cannot be fetched.") from error
    is_private = parsed.host == "localhost" or parsed.host.endswith((".localhost", ".local", ".internal"))
    with contextlib.suppress(ValueError):  # a name, not a number
        is_private = is_private or not ipaddress.ip_address(parsed.host).is_global
    if parsed.scheme != "https" or not parsed.host or is_private:
        raise JobFailed(f"fal gave an address for the file {name} that is not public https: it is not fetched.")
