"""The folders of the stand-in of ComfyUI: inputs uploaded, outputs shown, LoRAs that others put there.

Names, refusals and what an equal upload gets: replicate_comfyui.md 3.2, 3.3.
"""

from __future__ import annotations

import email
import email.message
import email.policy
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from providers.sandbox.shelf import Shelf
from providers.sandbox.wire import FilePart, Reply, Request

UPLOAD_BYTES = 100 * 1024**2
"""ComfyUI's own limit, unless started with --max-upload-size (3.3)."""

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".mp4": "video/mp4"}
KINDS = ("output", "input", "temp")


def comfyui_loras_folder(home: Path) -> Path:
    """Where the stand-in of this home (ONMODEL_HOME) finds LoRAs: what ONMODEL_COMFYUI_LORAS is to a real one."""
    return home / "sandbox" / "comfyui" / "models" / "loras"


class ComfyFiles:
    """The folders below `root`; made when missing."""

    def __init__(self, root: Path, shelf: Shelf) -> None:
        self._root = root
        self._shelf = shelf
        self._lock = threading.Lock()
        self._on_shelf: dict[str, str] = {}
        self.loras = root / "models" / "loras"
        for folder in (self.loras, *(root / kind for kind in KINDS)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def sweep(self, keep_seconds: float) -> None:
        """Forget pictures and clips of long ago. LoRAs stay: who placed one counts on it."""
        for kind in KINDS:
            for path in (self._root / kind).rglob("*"):
                if path.is_file() and time.time() - path.stat().st_mtime > keep_seconds:
                    path.unlink(missing_ok=True)

    def lists(self) -> dict[str, list[str]]:
        """The lists that change with the folders: LoRAs at any depth, inputs at the top and below it."""
        inputs = _below(self._root / "input")
        return {
            "loras": [name for name in _below(self.loras) if name.endswith(".safetensors")],
            "input": [name for name in inputs if "/" not in name],
            "input below": [name for name in inputs if "/" in name],
        }

    def lora(self, name: str) -> Path:
        return self.loras / name

    def input(self, name: str) -> Path:
        return self._root / "input" / name

    def address(self, path: Path) -> str:
        """An address under which the workshop finds a file: it is put on the sandbox's shelf, once for each content."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with self._lock:
            known = self._on_shelf.get(digest)
            if known is not None and self._shelf.find_url(known) is not None:
                return known
            draft = self._shelf.scratch()
            shutil.copyfile(path, draft)
            media_type = MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
            self._on_shelf[digest] = self._shelf.put(draft, path.name, media_type).url()
            return self._on_shelf[digest]

    def keep_output(self, url: str, prefix: str) -> dict[str, str]:
        """Write a job's file under the prefix, numbered on; what a history says of it.

        One that is gone from the shelf (a fault) is named and not there.
        """
        place = PurePosixPath(prefix)
        folder = self._root / "output" / place.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock:
            number = 1 + sum(1 for _ in folder.glob(f"{place.name}_*_.*"))
            name = f"{place.name}_{number:05}_{PurePosixPath(url).suffix}"
            stored = self._shelf.find_url(url)
            if stored is not None:
                shutil.copyfile(self._shelf.path(stored), folder / name)
        subfolder = "" if str(place.parent) == "." else str(place.parent)
        return {"filename": name, "subfolder": subfolder, "type": "output"}

    def upload(self, request: Request) -> Reply:
        """POST /upload/image."""
        head = f"Content-Type: {request.header('Content-Type')}\r\n\r\n".encode()
        parsed = email.message_from_bytes(head + request.body.read(UPLOAD_BYTES), policy=email.policy.HTTP)
        parts: dict[str, Any] = {
            str(part.get_param("name", header="content-disposition")): part for part in parsed.iter_parts()
        }
        image = parts.get("image")
        name = image.get_filename() if image is not None else None
        content = image.get_payload(decode=True) if image is not None else None
        if not name or not isinstance(content, bytes):
            return Reply(400)
        subfolder, kind = _text(parts, "subfolder"), _text(parts, "type") or "input"
        base = self._root / (kind if kind in KINDS else "input")
        folder = (base / subfolder).resolve()
        if not folder.is_relative_to(base.resolve()):
            return Reply(400)
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(name).name
        with self._lock:
            target, number = folder / name, 0
            while target.exists() and target.read_bytes() != content and _text(parts, "overwrite") not in ("true", "1"):
                number += 1
                target = folder / f"{Path(name).stem} ({number}){Path(name).suffix}"
            target.write_bytes(content)
        return Reply.of(200, {"name": target.name, "subfolder": subfolder, "type": kind})

    def view(self, request: Request, *, is_cut: bool) -> Reply:
        """GET /view."""
        name, kind = request.query.get("filename", ""), request.query.get("type", "output")
        if not name:
            return Reply(404)
        if name.startswith("/") or ".." in name or kind not in KINDS:
            return Reply(400)
        base = (self._root / kind).resolve()
        folder = (base / request.query.get("subfolder", "")).resolve()
        if not folder.is_relative_to(base):
            return Reply(403)
        path = folder / Path(name).name
        if not path.is_file():
            return Reply(404)
        size = path.stat().st_size
        headers = {
            "Content-Type": MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"),
            "Content-Disposition": f'filename="{path.name}"',
        }
        cut_at = size // 2 if is_cut else None
        wanted = re.fullmatch(r"bytes=(\d+)-", request.header("Range") or "")
        if wanted is None:
            return Reply(200, headers, FilePart(path, 0, size, cut_at))
        first = int(wanted[1])
        if first >= size:
            return Reply(416, {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        return Reply(206, headers, FilePart(path, first, size - first, cut_at))


def _below(folder: Path) -> list[str]:
    """Every file of a folder by its name below it, sorted; what begins with a dot is being written."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _text(parts: Mapping[str, email.message.Message[Any, Any]], name: str) -> str:
    part = parts.get(name)
    content = part.get_payload(decode=True) if part is not None else None
    return content.decode(errors="replace").strip() if isinstance(content, bytes) else ""
