"""Files to and from a ComfyUI server: uploads into its input folder, resuming downloads from its output folder."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, Rejected, ResultExpired, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.comfyui.client import ComfyUiClient
from providers.comfyui.history import CONTENT_TYPES, check_place
from providers.resuming import FileWords, fetch_resuming, is_identity, range_headers
from providers.vendor_words import json_of

FOLDER = "onmodel"
"""Where our uploads lie in ComfyUI's input folder, so that a person can tell and delete them."""

TYPES = ("output", "temp", "input")


class ComfyUiFiles:
    """`FileHost` at a ComfyUI server."""

    def __init__(self, client: ComfyUiClient) -> None:
        self._client = client

    def upload(self, path: Path, ref: BlobRef) -> str:
        """The name under which a workflow's node finds the file: "subfolder/name", as ComfyUI answered.

        Named by its digest and never overwritten, so that repeating it harms no job that reads it meanwhile.
        `Rejected` when ComfyUI does not take it (above 100 MB unless started with --max-upload-size; 3.3).
        """
        name = f"{ref.sha256}{_suffix(ref)}"
        try:
            with path.open("rb") as file:
                response = self._client.send(
                    "POST",
                    "/upload/image",
                    files={"image": (name, file, ref.media_type)},
                    data={"subfolder": FOLDER, "type": "input"},
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"{ref.file_name!r} could not be uploaded to {self._client.place} ({self._client.failure(error)}); "
                "it can be tried again."
            ) from error
        if response.status_code in (400, 413, 415, 422):
            raise Rejected(
                f"{self._client.place} did not take the file {ref.file_name!r} ({response.status_code}: "
                f"{self._client.words(response)}): it may be larger than its --max-upload-size."
            )
        if not response.is_success:
            raise self._client.refused_look(response, f"uploading {ref.file_name!r}")
        answer = json_of(response)
        given = answer if isinstance(answer, dict) else {}
        try:
            given_name, subfolder = check_place(given.get("name"), given.get("subfolder"))
        except ValueError as problem:
            raise Unavailable(
                f"{self._client.place} took {ref.file_name!r} but gave no usable name for it ({problem}); it can be "
                "uploaded again."
            ) from problem
        return f"{subfolder}/{given_name}" if subfolder else given_name

    def download(self, file: OutputFile, into: BinaryIO) -> None:
        """Stream the file into a seekable stream, from where that stands.

        A broken connection is resumed by range up to three times (aiohttp, under ComfyUI, serves ranges), from the
        start where a proxy ignores that; the length is compared with what was promised.
        """
        words = FileWords(name=repr(file.file_name or file.role), place=self._client.place, store=self._client.place)
        open_at = partial(self._open, self._own_address(file), words)
        fetch_resuming(open_at, into, words, self._client.failure, is_total_checked=True)

    def _own_address(self, file: OutputFile) -> str:
        """The file's place at the server that we know, whatever server the stored address names."""
        try:
            query = httpx.URL(file.url).params
            name, subfolder = check_place(query.get("filename"), query.get("subfolder", ""))
        except (httpx.InvalidURL, ValueError) as error:
            raise JobFailed(f"The address of the {file.role} is none of ComfyUI's files: it is not fetched.") from error
        kind = query.get("type", "output")
        return self._client.address(
            "/view", filename=name, subfolder=subfolder, type=kind if kind in TYPES else "output"
        )

    def _open(self, url: str, words: FileWords, offset: int) -> httpx.Response:
        """A still unread answer from `offset` on, its status checked."""
        response = self._client.open(url, range_headers(offset))
        code, name = response.status_code, words.name
        if code in (200, 206) and not is_identity(response):
            response.close()
            raise Unavailable(f"{self._client.place} sent {name} compressed though asked not to; try again.")
        if code in (200, 206) or (code == 416 and offset):
            return response
        with contextlib.closing(response):
            if code in (404, 410):
                raise ResultExpired(
                    f"The file {name} is gone from {self._client.place} ({code}): it was moved or deleted there."
                )
            response.read()  # for its words
            raise self._client.refused_look(response, f"fetching the file {name}")


def _suffix(ref: BlobRef) -> str:
    """The ending of the file's name if it is a plain one, else one that fits its media type: nodes go by it."""
    suffix = PurePosixPath(ref.file_name.replace("\\", "/")).suffix.lower()
    if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 12:
        return suffix
    return next((ending for ending, kind in CONTENT_TYPES.items() if kind == ref.media_type), "")
