"""ComfyUI's history read: how a job ended, why it failed, and which files it made.

Shapes: replicate_comfyui.md 3.2 and 3.4.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from domain.errors import JobFailed
from domain.jobs import OutputFile, VendorState
from providers.comfyui.client import ComfyUiClient

STATE_OF = {"success": VendorState.DONE, "error": VendorState.FAILED}
LISTS = ("images", "gifs", "video", "videos", "audio")
"""Where nodes list files: core nodes put clips into `images` too, VideoHelperSuite into `gifs`."""

CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
}
LONGEST_NAME = 255


def ending(entry: dict[str, Any]) -> tuple[VendorState, str | None]:
    """How a job in the history ended, and what to tell a person (in ComfyUI's words, unquoted)."""
    status = entry.get("status")
    word = status.get("status_str") if isinstance(status, dict) else None
    state = STATE_OF.get(word, VendorState.UNKNOWN_WORD) if isinstance(word, str) else VendorState.UNKNOWN_WORD
    if state is VendorState.UNKNOWN_WORD:
        return state, f"ComfyUI says {word!r}"
    if state is VendorState.DONE:
        return state, None
    said = dict(_messages(entry))
    if "execution_interrupted" in said:
        return VendorState.CANCELLED, "it was interrupted"
    fault = said.get("execution_error", {})
    reason = ": ".join(str(fault[name]) for name in ("exception_type", "exception_message") if fault.get(name))
    return state, f"node {fault.get('node_id', '?')} ({fault.get('node_type', '?')}): {reason or 'no reason given'}"


def made_files(
    entry: dict[str, Any], client: ComfyUiClient, *, role: str, graph: dict[str, Any]
) -> tuple[OutputFile, ...]:
    """The files of a job that succeeded, those of the kind that was bought under `role`, the others as "other".

    Previews (of type temp) are left out. `JobFailed` when there is none of the role, or a name leads out of its folder.
    """
    outputs = entry.get("outputs")
    found: list[OutputFile] = []
    for node in outputs.values() if isinstance(outputs, dict) else ():
        animated = node.get("animated") if isinstance(node, dict) else None
        for where in LISTS if isinstance(node, dict) else ():
            items = node.get(where)
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and item.get("type") == "output":
                    moves = where in ("gifs", "video", "videos") or bool(isinstance(animated, list) and any(animated))
                    found.append(_file(item, client, role=role, moves=moves))
    if any(file.role == role for file in found):
        return tuple(found)
    cached = dict(_messages(entry)).get("execution_cached", {}).get("nodes")
    if not found and isinstance(cached, list) and set(graph) <= {str(node) for node in cached}:
        raise JobFailed(
            f"{client.place} took the whole workflow from its cache and wrote no {role}: give every job a "
            "filename_prefix of its own."
        )
    raise JobFailed(f"{client.place} calls the workflow done, but it saved no {role}: it needs a node that saves one.")


def check_place(name: object, subfolder: object) -> tuple[str, str]:
    """A file name and its folder as a stranger gave them; `ValueError` when they lead anywhere but down.

    Both are later sent back to ComfyUI, and the name becomes one of ours.
    """
    if not isinstance(name, str) or not isinstance(subfolder, str) or not name:
        raise ValueError("no name")
    if re.search(r"[/\\]", name) or re.search(r" \[(input|output|temp)\]$", name) or name.startswith("blake3:"):
        raise ValueError("a name that means more than itself")
    parts = [*subfolder.replace("\\", "/").split("/"), name] if subfolder else [name]
    for part in parts:
        if part == "" or ".." in part or not part.isprintable() or re.match(r"[A-Za-z]:", part):
            raise ValueError("a folder or name that leads elsewhere")
        if len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
            raise ValueError("a name too long")
    return name, subfolder


def _file(item: dict[str, Any], client: ComfyUiClient, *, role: str, moves: bool) -> OutputFile:
    try:
        name, subfolder = check_place(item.get("filename"), item.get("subfolder", ""))
    except ValueError as problem:
        seen = client.quote(f"{item.get('subfolder')}/{item.get('filename')}"[:200])
        raise JobFailed(
            f"{client.place} named an output file {seen!r} ({problem}): it is not fetched; correct the workflow's "
            "filename_prefix."
        ) from None
    content_type = CONTENT_TYPES.get(PurePosixPath(name).suffix.lower())
    kind = (content_type or "").partition("/")[0]
    is_moving = kind == "video" or (moves and kind != "audio")
    is_bought = is_moving if role == "video" else kind == role and not is_moving
    return OutputFile(
        role=role if is_bought else "other",
        url=client.address("/view", filename=name, subfolder=subfolder, type="output"),
        content_type=content_type,
        file_name=name,
    )


def _messages(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The events ComfyUI kept of a job, in order; what cannot be read is left out."""
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, dict) else None
    return [
        (message[0], message[1])
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, list)
        and len(message) == 2
        and isinstance(message[0], str)
        and isinstance(message[1], dict)
    ]
