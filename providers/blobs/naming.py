"""How stored bytes are named: what counts as a digest, a media type and a link's lifetime, in every store alike."""

from __future__ import annotations

import base64
import re
from datetime import timedelta

from domain.errors import BadInput

CHUNK_BYTES = 1024 * 1024
"""What is held in memory at once while bytes are stored, fetched or served."""

LONGEST_LINK = timedelta(days=7)
"""SigV4 refuses links that live longer; ours keep to the same, so that moving to S3 breaks no link.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html (2026-11)
"""

UNKNOWN_MEDIA_TYPE = "application/octet-stream"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]*)?")


def is_digest(text: str) -> bool:
    """Is this the name of a blob: 64 lower-case hex digits and nothing else?"""
    return _DIGEST.fullmatch(text) is not None


def check_digest(sha256: str) -> str:
    """The digest itself; `BadInput` for anything else, because it becomes a path and a key."""
    if not is_digest(sha256):
        raise BadInput(f"{sha256[:80]!r} does not name a stored file: give the SHA-256 as 64 lower-case hex digits.")
    return sha256


def header_media_type(media_type: str) -> str:
    """The media type as it may stand in an HTTP header; what may not (accents, line breaks) counts as unknown."""
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else UNKNOWN_MEDIA_TYPE


def lifetime_seconds(valid_for: timedelta) -> int:
    """Whole seconds a link lives (0 or less is expired at once); `BadInput` over `LONGEST_LINK`."""
    if valid_for > LONGEST_LINK:
        raise BadInput(f"A link was asked to live for {valid_for}: ask for at most {LONGEST_LINK.days} days.")
    return int(valid_for.total_seconds())


def put_headers(sha256: str, media_type: str) -> dict[str, str]:
    """What a PUT to a presigned link must carry beside the bytes, so that the server holds them to their digest."""
    return {"Content-Type": header_media_type(media_type), "x-amz-checksum-sha256": base64_digest(sha256)}


def base64_digest(sha256: str) -> str:
    """The digest as S3's checksum headers write it."""
    return base64.b64encode(bytes.fromhex(check_digest(sha256))).decode()


def missing(sha256: str, store_url: str) -> BadInput:
    """The error of every store for a digest that it does not hold."""
    return BadInput(f"No stored file {sha256} in {store_url}: it was deleted, or lies in another store; put it again.")
