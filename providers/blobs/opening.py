"""Which blob store the settings name: `file:///folder` or `s3://bucket/prefix`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from domain.errors import BadInput
from providers.ports import BlobStore
from providers.settings import Settings


def open_blob_store(settings: Settings) -> BlobStore:
    """The store of `ONMODEL_STORAGE_URL`; nothing is created or reached before it is used."""
    parts = urlsplit(settings.storage_url)
    if parts.scheme == "file":
        from providers.blobs.local import LocalBlobStore

        return LocalBlobStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        from providers.blobs.s3 import S3BlobStore  # boto3 takes a while to load, so only where it is used

        return S3BlobStore(
            parts.netloc,
            unquote(parts.path).strip("/"),
            settings.home / "cache" / "blobs",
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
        )
    raise BadInput(
        f"ONMODEL_STORAGE_URL is {settings.storage_url!r}: write file:///absolute/folder or s3://bucket/prefix."
    )
