"""Which blob store, and which handover beside it, the settings name: `file:///folder` or `s3://bucket/prefix`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from domain.errors import BadInput
from providers.ports import BlobStore
from providers.settings import Settings
from providers.vendor_ports import Handover


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


def open_handover(settings: Settings, blobs: BlobStore) -> Handover:
    """The handover beside the store of `open_blob_store`: a bucket's own, else a folder that rented machines cannot
    reach, which says so when they would have to."""
    if urlsplit(settings.storage_url).scheme == "s3":
        from providers.blobs.s3 import S3BlobStore
        from providers.blobs.s3_handover import StoreHandover

        assert isinstance(blobs, S3BlobStore)
        return StoreHandover(blobs)
    from providers.blobs.handover import LocalHandover

    return LocalHandover(settings.home / "handover")
