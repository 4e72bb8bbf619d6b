"""The sandbox's handover: where its rented machines, which are processes of this machine, read data and leave results.

It answers for one host name of its own, and gives out signed links to itself on loopback (`/_as/HOST/…`): a link is
good for one method, one file and a while, and its holder needs nothing else.
"""

from __future__ import annotations

import hmac
import json
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from providers.blobs.naming import is_digest
from providers.sandbox.faults import FaultPlan, answer_of
from providers.sandbox.places import HANDOVER_HOST, plain_segment
from providers.sandbox.wire import FilePart, Reply, Request, refusal

KEPT_SECONDS = 7 * 86400.0


class SandboxHandoverPart:
    """`Part` that keeps the files below `folder`. Uploads meet the faults of `upload:`, reading those of `file:`."""

    hosts = frozenset({HANDOVER_HOST})

    def __init__(self, folder: Path, faults: FaultPlan, url: Callable[[], str]) -> None:
        self._root = folder
        self._faults = faults
        self._url = url
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = folder / "secret"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(32))
        self._secret = secret.read_text().encode()

    def posts(self) -> dict[str, int]:
        """Nothing is sold here."""
        return {}

    def start(self) -> None:
        """Forget what is older than a week: a box is read within a job's life, and each holds a LoRA."""
        for path in self._root.glob("*/*/*"):
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Nothing runs."""

    def answer(self, request: Request) -> Reply:
        match request.method, request.segments:
            case "PUT", ["files", sha256, name] if is_digest(sha256) and plain_segment(name):
                return self._take(request, f"/files/{sha256}/{name}")
            case "POST", ["links"]:
                return self._link(request)
            case "GET", ["files" | "boxes", box, name] if plain_segment(box) and plain_segment(name):
                return self._send(request)
            case "PUT", ["boxes", box, name] if plain_segment(box) and plain_segment(name):
                if not self._is_signed(request, "PUT"):
                    return refusal(403, "The link is not valid")
                return self._take(request, request.path)
            case "DELETE", ["boxes", box] if plain_segment(box) and self._is_ours(request):
                shutil.rmtree(self._root / "boxes" / box, ignore_errors=True)
                return Reply(204)
            case _:
                return refusal(404, "Not found")

    def _link(self, request: Request) -> Reply:
        given = json.loads(request.body.read())
        method, path, seconds = given["method"], str(given["path"]), float(given["seconds"])
        until = int(time.time() + seconds)
        query = f"method={method}&until={until}&signature={self._sign(method, path, until)}"
        return Reply.of(200, {"url": f"{self._url()}/_as/{HANDOVER_HOST}{quote(path)}?{query}"})

    def _take(self, request: Request, path: str) -> Reply:
        if fault := self._faults.pick("upload", path):
            return answer_of(fault)
        target = self._root / path.strip("/")
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = target.with_name(f".{secrets.token_hex(6)}")
        request.body.save(draft)
        draft.rename(target)
        return Reply(200)

    def _send(self, request: Request) -> Reply:
        if not self._is_ours(request) and not self._is_signed(request, "GET"):
            return refusal(403, "The link is not valid")
        path = self._root / request.path.strip("/")
        if not path.is_file():
            return refusal(404, "File not found")
        if fault := self._faults.pick("file", request.path):
            if fault.kind != "truncate":
                return answer_of(fault)
            return Reply(200, {}, FilePart(path, 0, path.stat().st_size, path.stat().st_size // 2))
        size, start = path.stat().st_size, 0
        wanted = (request.header("Range") or "").removeprefix("bytes=").removesuffix("-")
        headers = {"Content-Type": "application/octet-stream"}
        if wanted.isdigit() and int(wanted) < size:
            start = int(wanted)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        return Reply(206 if start else 200, headers, FilePart(path, start, size - start))

    def _is_ours(self, request: Request) -> bool:
        """Whether it comes from the adapter, by the host's own name, and not by a link."""
        return request.header("Authorization") == "Bearer sandbox"

    def _is_signed(self, request: Request, method: str) -> bool:
        until = request.query.get("until", "")
        signature = request.query.get("signature", "")
        if not until.isdigit() or int(until) < time.time() or request.query.get("method") != method:
            return False
        return hmac.compare_digest(signature, self._sign(method, request.path, int(until)))

    def _sign(self, method: str, path: str, until: int) -> str:
        return hmac.new(self._secret, json.dumps([method, path, until]).encode(), "sha256").hexdigest()
