"""Files to and from Replicate: its own file store for pictures and zips, links to ours for LoRAs, a resuming download.

Replicate's loaders refuse an address at its own file store as a LoRA, and any whose path does not end in
`.safetensors`; they keep what they loaded by the address, so that the digest stands in it (replicate_comfyui.md 2.3).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, NotConfigured, Rejected, ResultExpired, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.replicate.archives import MOST_BYTES, WEIGHTS_SUFFIX, copy_weights
from providers.replicate.client import MAYBE_TAKEN, ReplicateClient, json_of, may_carry_token
from providers.vendor_ports import Handover

LARGEST_UPLOAD_BYTES = 100 * 1000 * 1000
"""Above 100 MB Replicate's file store says 413 (replicate_comfyui.md 1.1)."""

LINK_VALID_FOR = timedelta(hours=24)
"""The door uses an address again for up to 12 hours (tasks/jobs.py); then come the queue and a cold start."""

MAX_RESUMES = 3
MAX_REDIRECTS = 5


class ReplicateFiles:
    """`FileHost` at Replicate; `handover` is our own store, for whatever its file store cannot serve."""

    def __init__(self, client: ReplicateClient, handover: Handover) -> None:
        self._client = client
        self._handover = handover

    def upload(self, path: Path, ref: BlobRef) -> str:
        """An address Replicate can read: of a LoRA or a file above 100 MB a link to our own store, of all others its
        file store's. How long its own store keeps a file is not confirmed (an example of Replicate's shows an hour).

        `NotConfigured` where our own store cannot be followed from outside.
        """
        if ref.file_name.lower().endswith(WEIGHTS_SUFFIX):
            name = f"lora-{ref.sha256[:16]}{WEIGHTS_SUFFIX}"
            return self._link(path, ref.model_copy(update={"file_name": name}), "loads LoRAs from")
        if path.stat().st_size > LARGEST_UPLOAD_BYTES:
            return self._link(path, ref, "reads files above 100 MB from")
        return self._upload(path, ref)

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Stream the file into a seekable stream, from where that stands; of a trainer's archive its LoRA alone.

        The token is sent to Replicate's API only. A broken connection is resumed by range up to three times, and the
        length is compared with what was promised.
        """
        if not file.role.startswith("lora"):
            self._fetch(file, into)
            return
        with tempfile.TemporaryDirectory(prefix="onmodel-replicate-") as folder:
            archive = Path(folder) / "weights"
            with archive.open("w+b") as target:
                self._fetch(file, target)
            copy_weights(archive, into, file.url.rsplit("/", 1)[-1][:80])

    # --- up ---

    def _link(self, path: Path, ref: BlobRef, why: str) -> str:
        try:
            return self._handover.read_link(path, ref, LINK_VALID_FOR)
        except NotConfigured as reason:
            raise NotConfigured(
                f"Replicate {why} an address of our own store ({reason.message}): set ONMODEL_STORAGE_URL=s3://… to a "
                "store that can be reached from outside."
            ) from reason

    def _upload(self, path: Path, ref: BlobRef) -> str:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", ref.file_name).lstrip(".")[-120:] or "file"
        with path.open("rb") as content:
            parts = {
                "content": (name, content, ref.media_type),
                "metadata": (None, json.dumps({"sha256": ref.sha256}), "application/json"),
            }
            response = self._client.look("POST", "/files", files=parts)
        if not response.is_success:
            account = self._client.account_error(response, f"uploading {name}")
            if account is not None:
                raise account
            said = self._client.words(response)
            if 400 <= said.status < 500 and said.status not in MAYBE_TAKEN:
                raise Rejected(f"Replicate refused the upload of {name} ({said.status}: {said.text}): mend the file.")
            raise Unavailable(f"Replicate failed to take {name} ({said.status}: {said.text}); it can be tried again.")
        answer = json_of(response)
        urls = answer.get("urls") if isinstance(answer, dict) else None
        url = urls.get("get") if isinstance(urls, dict) else None
        if not isinstance(url, str) or not url.startswith("https://"):
            raise Unavailable(f"Replicate took {name} but gave no https address for it; it can be uploaded again.")
        sums = answer.get("checksums")
        told = sums.get("sha256") if isinstance(sums, dict) else None
        if isinstance(told, str) and told.lower() != ref.sha256:
            raise Unavailable(
                f"Replicate has other bytes of {name} than were sent (SHA-256 {told[:12]}, not {ref.sha256[:12]}); "
                "it can be uploaded again."
            )
        return url

    # --- down ---

    def _fetch(self, file: OutputFile, into: BinaryIO) -> None:
        name = file.file_name or file.role
        start, got, promised, seen = into.tell(), 0, None, ""
        for _ in range(1 + MAX_RESUMES):
            try:
                with contextlib.closing(self._open(file.url, got, name)) as response:
                    if response.status_code == 416:
                        if promised in (None, got):
                            return  # nothing is left beyond what we have
                        break
                    got = _place_of(response, got, into, start)
                    promised = _promised_bytes(response, got) or promised
                    # No chunk size: httpx would hold bytes back, and lose them when the connection breaks.
                    for chunk in response.iter_raw():
                        into.write(chunk)
                        got += len(chunk)
                        if got > MOST_BYTES:
                            raise JobFailed(f"The file {name} is larger than {MOST_BYTES // 1024**3} GiB.")
                if promised is None or got == promised:
                    return
                seen = f"{got} of {promised} bytes came"
            except httpx.HTTPError as error:
                got = into.tell() - start
                seen = f"{self._client.failure(error)} after {got} bytes"
        raise Unavailable(f"The file {name} could not be fetched whole from Replicate ({seen}); it can be tried again.")

    def _open(self, url: str, offset: int, name: str) -> httpx.Response:
        """A checked, still unread answer to GET from `offset` on; redirects are followed to checked addresses only."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        for _ in range(1 + MAX_REDIRECTS):
            _check_public_https(url, name)
            ours = {"Authorization": self._client.authorization} if may_carry_token(url) else {}
            request = self._client.http.build_request("GET", url, headers={**headers, **ours})
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
            raise Unavailable(f"Replicate sent {name} compressed though asked not to; it can be tried again.")
        response.close()
        if code in (404, 410):
            raise ResultExpired(f"The file {name} is gone from Replicate ({code}): it is deleted there after an hour.")
        raise Unavailable(f"Replicate answered {code} for the file {name}; it can be tried again.")


def _place_of(response: httpx.Response, offset: int, into: BinaryIO, start: int) -> int:
    """Where the answer's bytes belong: at the offset we asked for, or at the start when the range was ignored."""
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        if match is None or int(match[1]) != offset:
            raise Unavailable("Replicate resumed a file at another place than asked; it can be tried again.")
        return offset
    into.seek(start)
    into.truncate()
    return 0


def _promised_bytes(response: httpx.Response, offset: int) -> int | None:
    """Length of the whole file, from this answer's own part of it; None when the answer does not say."""
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def _check_public_https(url: str, name: str) -> None:
    """The address stands in a stranger's answer: only https to a public host is followed."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise JobFailed(f"Replicate gave no valid address for the file {name}: it cannot be fetched.") from error
    is_private = parsed.host == "localhost" or parsed.host.endswith((".localhost", ".local", ".internal"))
    with contextlib.suppress(ValueError):  # a name, not a number
        is_private = is_private or not ipaddress.ip_address(parsed.host).is_global
    if parsed.scheme != "https" or not parsed.host or is_private:
        raise JobFailed(f"Replicate gave an address for the file {name} that is not public https: it is not fetched.")
