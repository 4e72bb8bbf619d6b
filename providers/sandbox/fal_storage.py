"""fal's storage: upload tokens, single and multipart uploads, the older two-step way, and the files themselves.

Protocol: reference 1.7. Reading needs no key, as at fal; writing needs the account's key or the token it was given.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from providers.sandbox.fal_wire import refuse_key
from providers.sandbox.faults import FaultPlan, answer_of
from providers.sandbox.shelf import Shelf, StoredFile, safe_name
from providers.sandbox.wire import FilePart, Reply, Request, refusal

TOKEN_SECONDS = 3600


class FalStorage:
    """Answers for rest.fal.ai and v3.fal.media. `secret_file` keeps tokens valid across restarts."""

    def __init__(self, shelf: Shelf, faults: FaultPlan, secret_file: Path) -> None:
        self._shelf = shelf
        self._faults = faults
        if not secret_file.exists():
            secret_file.touch(mode=0o600)
            secret_file.write_text(secrets.token_hex(32))
        self._secret = secret_file.read_text().encode()

    def answer_rest(self, request: Request) -> Reply:
        if refused := refuse_key(request, is_buying=True):
            return refused
        if fault := self._faults.pick("upload", request.path):
            return answer_of(fault)
        match request.method, request.path:
            case "POST", "/storage/auth/token":
                expires_at = int(time.time()) + TOKEN_SECONDS
                answer = {
                    "token": f"{expires_at}.{self._sign(str(expires_at))}",
                    "token_type": "Bearer",
                    "base_url": "https://v3b.fal.media",
                    "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
                }
                return Reply.of(200, answer)
            case "POST", "/storage/upload/initiate":
                return self._initiate(request)
            case _:
                return refusal(404, "Not found")

    def answer_files(self, request: Request) -> Reply:
        segments = request.segments
        match request.method, segments:
            case "GET" | "HEAD", ["files", "sandbox", file_id, name]:
                return self._send(request, self._shelf.find(file_id, name))
            case "PUT", ["files", "sandbox", file_id, name]:
                return self._put(request, file_id, name)
            case "POST", ["files", "upload"]:
                return self._write(request, self._upload)
            case "POST", ["files", "upload", "multipart"]:
                return self._write(request, self._open_multipart)
            case "PUT", ["files", "sandbox", _, _, "multipart", _, _]:
                return self._write(request, self._take_part)
            case "POST", ["files", "sandbox", _, _, "multipart", _, "complete"]:
                return self._write(request, self._close_multipart)
            case _:
                return refusal(404, "Not found")

    # --- writing ---

    def _write(self, request: Request, then: Callable[[Request], Reply]) -> Reply:
        scheme, _, token = (request.header("Authorization") or "").partition(" ")
        if scheme == "Bearer":
            expires_at, _, signature = token.partition(".")
            if not hmac.compare_digest(signature, self._sign(expires_at)) or int(expires_at) < time.time():
                return refusal(401, "Invalid or expired token")
        elif refused := refuse_key(request, is_buying=True):
            return refused
        if fault := self._faults.pick("upload", request.path):
            return answer_of(fault)
        return then(request)

    def _upload(self, request: Request) -> Reply:
        draft = self._shelf.scratch()
        request.body.save(draft)
        name = request.header("X-Fal-File-Name") or "upload.bin"
        stored = self._shelf.put(draft, name, _media_type(request), lifetime_seconds=_lifetime(request))
        return Reply.of(200, {"access_url": stored.url()})

    def _open_multipart(self, request: Request) -> Reply:
        file_id, upload_id = Shelf.new_id(), Shelf.new_id()
        name = safe_name(request.header("X-Fal-File-Name") or "upload.bin")
        folder = self._shelf.multipart_folder(file_id, upload_id)
        if folder is None:
            return refusal(500, "No such upload")
        folder.mkdir(mode=0o700)
        facts = {"name": name, "content_type": _media_type(request), "lifetime_seconds": _lifetime(request)}
        (folder / "facts.json").write_text(json.dumps(facts))
        url = f"https://v3b.fal.media/files/sandbox/{file_id}/{name}"
        return Reply.of(200, {"access_url": url, "uploadId": upload_id})

    def _take_part(self, request: Request) -> Reply:
        _, _, file_id, _, _, upload_id, number = request.segments
        folder = self._shelf.multipart_folder(file_id, upload_id)
        if folder is None or not folder.is_dir() or not number.isdigit():
            return refusal(404, "No such upload")
        part = folder / f"part-{int(number):05d}"
        request.body.save(part)
        digest = hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest()
        return Reply.of(200, {"partNumber": int(number)}, {"ETag": f'"{digest}"'})

    def _close_multipart(self, request: Request) -> Reply:
        _, _, file_id, name, _, upload_id, _ = request.segments
        folder = self._shelf.multipart_folder(file_id, upload_id)
        if folder is None or not folder.is_dir():
            return refusal(404, "No such upload")
        # fal-client lists the parts in the order they finished, not in theirs.
        named = sorted(json.loads(request.body.read())["parts"], key=lambda part: int(part["partNumber"]))
        paths = [folder / f"part-{int(part['partNumber']):05d}" for part in named]
        if not paths or not all(path.exists() for path in paths):
            return refusal(400, "Parts are missing")
        draft = self._shelf.scratch()
        with draft.open("wb") as whole:
            for path, part in zip(paths, named, strict=True):
                data = path.read_bytes()
                if hashlib.md5(data, usedforsecurity=False).hexdigest() != part["etag"].strip('"'):
                    return refusal(400, f"The ETag of part {part['partNumber']} does not match")
                whole.write(data)
        facts = json.loads((folder / "facts.json").read_text())
        self._shelf.put(draft, name, facts["content_type"], file_id=file_id, lifetime_seconds=facts["lifetime_seconds"])
        shutil.rmtree(folder, ignore_errors=True)
        return Reply.of(200, {"access_url": f"https://v3b.fal.media/files/sandbox/{file_id}/{name}"})

    def _initiate(self, request: Request) -> Reply:
        wanted = json.loads(request.body.read())
        file_id, name = Shelf.new_id(), safe_name(wanted["file_name"])
        url = f"https://v3.fal.media/files/sandbox/{file_id}/{name}"
        return Reply.of(200, {"upload_url": f"{url}?signature={self._sign(file_id)}", "file_url": url})

    def _put(self, request: Request, file_id: str, name: str) -> Reply:
        if not hmac.compare_digest(request.query.get("signature", ""), self._sign(file_id)):
            return refusal(403, "The signature does not match")
        if fault := self._faults.pick("upload", request.path):
            return answer_of(fault)
        draft = self._shelf.scratch()
        request.body.save(draft)
        self._shelf.put(draft, name, _media_type(request), file_id=file_id)
        return Reply(200)

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()

    # --- reading ---

    def _send(self, request: Request, stored: StoredFile | None) -> Reply:
        if stored is None:
            return refusal(404, "File not found")
        fault = self._faults.pick("file", stored.made_by or "upload")
        if fault is not None and fault.kind == "expire_once":
            if not stored.made_by or stored.is_renewed:
                fault = None
            else:
                self._shelf.outdate(stored)
        if fault is not None and fault.kind != "truncate":
            return answer_of(fault)
        cut_at = stored.size_bytes // 2 if stored.is_truncated or fault is not None else None
        headers = {"Content-Type": stored.content_type, "Accept-Ranges": "bytes", "ETag": f'"{stored.file_id}"'}
        path = self._shelf.path(stored)
        wanted = request.header("Range")
        if wanted is None:
            return Reply(200, headers, FilePart(path, 0, stored.size_bytes, cut_at))
        span = _parse_range(wanted, stored.size_bytes)
        if span is None:
            return Reply(416, {"Content-Range": f"bytes */{stored.size_bytes}"})
        first, last = span
        headers["Content-Range"] = f"bytes {first}-{last}/{stored.size_bytes}"
        return Reply(206, headers, FilePart(path, first, last - first + 1, cut_at))


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range; None when it cannot be satisfied."""
    unit, _, span = text.partition("=")
    first, _, last = span.partition("-")
    if unit.strip() != "bytes" or not (first + last).isdigit():
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    return (start, end) if start <= end else None


def _media_type(request: Request) -> str:
    return request.header("Content-Type") or "application/octet-stream"


def _lifetime(request: Request) -> float | None:
    """Seconds until the upload may be deleted, from the lifecycle header; None: the sandbox's own time."""
    raw: Mapping[str, object] = json.loads(request.header("X-Fal-Object-Lifecycle-Preference") or "{}")
    seconds = raw.get("expiration_duration_seconds")
    return float(seconds) if isinstance(seconds, int | float) else None
