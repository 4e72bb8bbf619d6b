"""Files to and from Replicate: its own file store for pictures and zips, links to ours for LoRAs, a resuming download.

Replicate's loaders refuse an address at its own file store as a LoRA, and any whose path does not end in
`.safetensors`; they keep what they loaded by the address, so that the digest stands in it (replicate_comfyui.md 2.3).
"""

from __future__ import annotations

import json
import re
import tempfile
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx

from domain.errors import NotConfigured, Rejected, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.replicate.archives import MOST_BYTES, WEIGHTS_SUFFIX, copy_weights
from providers.replicate.client import MAYBE_TAKEN, ReplicateClient, may_carry_token
from providers.resuming import FileWords, fetch_resuming, open_public
from providers.vendor_ports import Handover
from providers.vendor_words import json_of

LARGEST_UPLOAD_BYTES = 100 * 1000 * 1000
"""Above 100 MB Replicate's file store says 413 (replicate_comfyui.md 1.1)."""

LINK_VALID_FOR = timedelta(hours=24)
"""The door uses an address again for up to 12 hours (tasks/jobs.py); then come the queue and a cold start."""


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
        words = FileWords(name=file.file_name or file.role, place="Replicate", store="Replicate")
        open_at = partial(self._open, file.url, words)
        fetch_resuming(open_at, into, words, self._client.failure, most_bytes=MOST_BYTES)

    def _open(self, url: str, words: FileWords, offset: int) -> httpx.Response:
        return open_public(
            self._client.http,
            url,
            offset,
            words,
            lifetime="it is deleted there after an hour",
            headers_to=self._token_for,
        )

    def _token_for(self, url: str) -> dict[str, str]:
        return {"Authorization": self._client.authorization} if may_carry_token(url) else {}
