"""The stand-in of Replicate's files: uploads to api.replicate.com/v1/files, and what replicate.delivery gives out."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.sandbox.fal_storage import FalStorage
from providers.sandbox.faults import FaultPlan
from providers.sandbox.replicate_answers import answer_of, problem
from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import Reply, Request

API = "https://api.replicate.com/v1"
FAL_PLACE = "https://v3.fal.media/files/sandbox/"
DELIVERY_PLACE = "https://replicate.delivery/sandbox/"

LARGEST_BYTES = 100 * 1000 * 1000
LIFETIME_SECONDS = 24 * 3600.0
"""The real one's is not confirmed: an example shows an hour (reference 5)."""


def delivery_address(shelf_url: str) -> str:
    """A file of the shelf under Replicate's own host."""
    return DELIVERY_PLACE + shelf_url.removeprefix(FAL_PLACE)


def local_address(url: str) -> str:
    """An address as the sandbox's runner reads it: those of Replicate's hosts are the shelf's, others stay."""
    if url.startswith(DELIVERY_PLACE):
        return FAL_PLACE + url.removeprefix(DELIVERY_PLACE)
    if url.startswith(f"{API}/files/"):
        # The id carries the name, so that the file is found without asking anybody.
        file_id, _, name = urlsplit(url).path.rsplit("/", 1)[-1].partition("-")
        return f"{FAL_PLACE}{file_id}/{name}"
    return url


def delivery_reply(request: Request, storage: FalStorage) -> Reply:
    """A file out of replicate.delivery; no token is asked for, as there."""
    match request.method, request.segments:
        case "GET" | "HEAD", ["sandbox", file_id, name]:
            return storage.answer_files(replace(request, path=f"/files/sandbox/{file_id}/{name}"))
        case _:
            return Reply.of(404, {"detail": "Not found"})


class ReplicateFileStore:
    """The addresses below /v1/files."""

    def __init__(self, shelf: Shelf, faults: FaultPlan, folder: Path) -> None:
        self._shelf = shelf
        self._faults = faults
        self._folder = folder / "files"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def answer(self, request: Request, rest: list[str]) -> Reply:
        match request.method, rest:
            case "POST", []:
                return self._upload(request)
            case "GET", []:
                return Reply.of(200, {"previous": None, "next": None, "results": self._all()})
            case "GET", [file_id]:
                facts = self._facts(file_id)
                return _missing() if facts is None else Reply.of(200, facts)
            case "DELETE", [file_id]:
                if self._facts(file_id) is None:
                    return _missing()
                self._path(file_id).unlink(missing_ok=True)
                return Reply(204)
            case _:
                return _missing()

    def _upload(self, request: Request) -> Reply:
        if fault := self._faults.pick("upload", "/v1/files"):
            return answer_of(fault)
        data = request.body.read(LARGEST_BYTES + 1_000_000)
        part = _content_part(request.header("Content-Type") or "", data)
        if part is None:
            return problem(422, "Validation failed", "content must be given as multipart/form-data")
        name, media_type, content, metadata = part
        if len(content) > LARGEST_BYTES:
            return problem(413, "Request entity too large", "The file exceeds 100 MB.")
        draft = self._shelf.scratch()
        draft.write_bytes(content)
        stored = self._shelf.put(draft, name, media_type, lifetime_seconds=LIFETIME_SECONDS)
        file_id = f"{stored.file_id}-{stored.name}"
        facts = {
            "id": file_id,
            "name": stored.name,
            "content_type": media_type,
            "size": len(content),
            "etag": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "checksums": {
                "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "metadata": metadata,
            "created_at": datetime.fromtimestamp(stored.stored_at, UTC).isoformat(),
            "expires_at": datetime.fromtimestamp(stored.stored_at + LIFETIME_SECONDS, UTC).isoformat(),
            "urls": {"get": f"{API}/files/{file_id}"},
        }
        self._path(file_id).write_text(json.dumps(facts))
        return Reply.of(201, facts)

    def _facts(self, file_id: str) -> dict[str, Any] | None:
        path = self._path(file_id)
        if path.parent != self._folder or not path.is_file():
            return None
        facts: dict[str, Any] = json.loads(path.read_text())
        return facts

    def _all(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))]

    def _path(self, file_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(file_id.encode()).hexdigest()}.json"


def _content_part(content_type: str, body: bytes) -> tuple[str, str, bytes, dict[str, Any]] | None:
    """Name, media type, bytes and metadata out of a multipart form; None when it has no file named `content`."""
    boundary = re.search(r'multipart/form-data;.*boundary="?([^";]+)"?', content_type)
    if boundary is None:
        return None
    found: tuple[str, str, bytes] | None = None
    metadata: dict[str, Any] = {}
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, data = piece.partition(b"\r\n\r\n")
        headers = head.decode("utf-8", "replace")
        name = re.search(r'[; ]name="([^"]*)"', headers)
        if name is None:
            continue
        if name[1] == "content":
            file_name = re.search(r'filename="([^"]*)"', headers)
            media_type = re.search(r"(?im)^content-type: *(\S+)", headers)
            found = (
                file_name[1] if file_name else "file",
                media_type[1] if media_type else "application/octet-stream",
                data,
            )
        elif name[1] == "metadata":
            try:
                metadata = json.loads(data)
            except ValueError:
                return None
    return None if found is None else (*found, metadata)


def _missing() -> Reply:
    return problem(404, "Not found", "The requested resource could not be found.")
