"""Files to and from a ComfyUI server: uploads into its input folder, resuming downloads from its output folder."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import httpx

from domain.errors import JobFailed, Rejected, ResultExpired, Unavailable
from domain.jobs import BlobRef, OutputFile
from providers.comfyui.client import ComfyUiClient, json_of
from providers.comfyui.history import CONTENT_TYPES, check_place

FOLDER = "onmodel"
"""Where our uploads lie in ComfyUI's input folder, so that a person can tell and delete them."""

MAX_RESUMES = 3
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
        url, name = self._own_address(file), file.file_name or file.role
        start, got, promised, seen = into.tell(), 0, None, ""
        for _ in range(1 + MAX_RESUMES):
            try:
                with contextlib.closing(self._open(url, got, name)) as response:
                    if response.status_code == 416:
                        if promised in (None, got):
                            return  # nothing is left beyond what we have
                        break
                    got = self._place_of(response, got, promised, into, start)
                    promised = _promised_bytes(response, got) or promised
                    # No chunk size: httpx would hold bytes back, and lose them when the connection breaks.
                    for chunk in response.iter_raw():
                        into.write(chunk)
                        got += len(chunk)
                if promised in (None, got):
                    return
                seen = f"{got} of {promised} bytes came"
            except httpx.HTTPError as error:
                got = into.tell() - start
                seen = f"{self._client.failure(error)} after {got} bytes"
        raise Unavailable(
            f"The file {name!r} could not be fetched whole from {self._client.place} ({seen}); it can be tried again."
        )

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

    def _open(self, url: str, offset: int, name: str) -> httpx.Response:
        """A still unread answer from `offset` on, its status checked."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._client.open(url, headers)
        code, encoding = response.status_code, response.headers.get("content-encoding", "identity")
        if code in (200, 206) and encoding != "identity":
            response.close()
            raise Unavailable(f"{self._client.place} sent {name!r} compressed though asked not to; try again.")
        if code in (200, 206) or (code == 416 and offset):
            return response
        with contextlib.closing(response):
            if code in (404, 410):
                raise ResultExpired(
                    f"The file {name!r} is gone from {self._client.place} ({code}): it was moved or deleted there."
                )
            response.read()  # for its words
            raise self._client.refused_look(response, f"fetching the file {name!r}")

    def _place_of(self, response: httpx.Response, offset: int, promised: int | None, into: BinaryIO, start: int) -> int:
        """Where the answer's bytes belong: at the offset we asked for, or at the start when the range was ignored."""
        if response.status_code == 206:
            match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
            if match is None or int(match[1]) != offset or (promised and match[2] not in ("*", str(promised))):
                raise Unavailable(
                    f"{self._client.place} resumed a file at another place than asked; it can be tried again."
                )
            return offset
        into.seek(start)
        into.truncate()
        return 0


def _promised_bytes(response: httpx.Response, offset: int) -> int | None:
    """Length of the whole file, from this answer's own part of it; None when the answer does not say."""
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def _suffix(ref: BlobRef) -> str:
    """The ending of the file's name if it is a plain one, else one that fits its media type: nodes go by it."""
    suffix = PurePosixPath(ref.file_name.replace("\\", "/")).suffix.lower()
    if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 12:
        return suffix
    return next((ending for ending, kind in CONTENT_TYPES.items() if kind == ref.media_type), "")
