"""What a file is by its first bytes, before anything that could be fooled opens it."""

from __future__ import annotations

from pathlib import Path

from domain.errors import BadInput

AGAIN = "download or export it again"

_MAGIC = {
    b"\x89PNG": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
}
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
"""Major brands of ISO files that hold pictures (AVIF, HEIF); ffmpeg would take them for clips of one frame."""


def first_bytes(path: Path) -> bytes:
    """The head of a regular file; `BadInput` says what there is instead. Never waits on a pipe or a device."""
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; give the path of one clip (MP4, MOV or WebM).")
        if not path.exists():
            raise BadInput(f"{path} is not there; check the path.")
        if not path.is_file():
            raise BadInput(f"{path} is not an ordinary file; give the path of one clip (MP4, MOV or WebM).")
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({why(error)}); check the path and its permissions.") from error
    if not head:
        raise BadInput(f"{path} is empty (0 bytes); {AGAIN}.")
    return head


def why(error: OSError | ValueError) -> str:
    """The system's own words for a failed read, without its number and the path we name ourselves."""
    return getattr(error, "strerror", None) or str(error)


def refuse_a_picture(path: Path, head: bytes) -> None:
    """`BadInput` for a picture that comes in a container of clips, by its first bytes."""
    if _picture_kind(head) is not None:
        raise BadInput(f"{path} {what_it_is(head)}")


def what_it_is(head: bytes) -> str:
    """The rest of a sentence about a file that is no clip, from its first bytes."""
    if (picture := _picture_kind(head)) is not None:
        return f"is {picture} picture, not a video; list it under images, or give a clip (MP4, MOV or WebM)."
    if head[4:8] == b"ftyp":
        return f"is cut short or damaged: its index (moov) is missing or unreadable; {AGAIN}."
    if not any(head):
        return f"is nothing but zeros at its start, as an unfinished download leaves it; {AGAIN}."
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 160 for byte in head):
        return "is text, not a video; give a clip (MP4, MOV or WebM)."
    return "is not a video that can be read; give an MP4, MOV or WebM, or convert it with ffmpeg."


def _picture_kind(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return "an AVIF or HEIC"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
