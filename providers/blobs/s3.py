"""Blobs in a bucket of S3, R2, MinIO or SeaweedFS: one object per SHA-256, with a cache of checked files beside it.

s3://bucket/prefix/aa/<sha256>
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError

from domain.errors import BadInput
from providers.blobs.local import LocalBlobStore
from providers.blobs.naming import (
    CHUNK_BYTES,
    base64_digest,
    check_digest,
    header_media_type,
    is_digest,
    lifetime_seconds,
    missing,
)
from providers.blobs.s3_client import is_not_found, open_s3, our_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

IN_PARTS_FROM_BYTES = 64 * 1024 * 1024
"""Larger files go up in parts: four at a time, streamed from the cache."""

PUT_AGAIN_AFTER = timedelta(hours=12)
"""Bytes that are put again within half a day keep their date: `stored_at` need not be finer."""

_PARTS = TransferConfig(multipart_threshold=1, multipart_chunksize=16 * 1024 * 1024, max_concurrency=4)


USERS = "users/"
"""Below it lies an empty object for each database that uses the store, named by its mark."""


class S3BlobStore:
    """`BlobStore` under a prefix of one bucket. Reaches nothing before it is used.

    What is put goes through the cache first: the copy there is whole and cannot change while it is sent.
    What is fetched enters the cache only when its bytes are those of its digest.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        cache: Path,
        *,
        endpoint_url: str | None,
        region: str,
        in_parts_from_bytes: int = IN_PARTS_FROM_BYTES,
        put_again_after: timedelta = PUT_AGAIN_AFTER,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._cache = LocalBlobStore(cache)
        self._endpoint_url = endpoint_url
        self._region = region
        self._in_parts_from_bytes = in_parts_from_bytes
        self._put_again_after = put_again_after
        self._opening = threading.Lock()

    # --- writing ---

    def put_file(self, path: Path, media_type: str) -> str:
        return self._send(self._cache.put_file(path, media_type), media_type)

    def put_bytes(self, data: bytes, media_type: str) -> str:
        return self._send(self._cache.put_bytes(data, media_type), media_type)

    def _send(self, sha256: str, media_type: str) -> str:
        stored_at = self.stored_at(sha256)
        if stored_at is not None:
            if stored_at < datetime.now(UTC) - self._put_again_after:
                self._count_as_put(sha256)
            return sha256
        path = self._cache.local_path(sha256)
        kind = header_media_type(media_type)
        with our_errors(self.url(sha256)):
            if path.stat().st_size < self._in_parts_from_bytes:
                with path.open("rb") as file:
                    self._s3.put_object(
                        Bucket=self._bucket,
                        Key=self._key(sha256),
                        Body=file,
                        ContentType=kind,
                        ChecksumSHA256=base64_digest(sha256),
                    )
            else:
                # R2 refuses parts with a SHA-256 (Alos-no/Cloudflare.NET#43, 2026-08), every server knows CRC32.
                extra = {"ContentType": kind, "ChecksumAlgorithm": "CRC32"}
                with create_transfer_manager(self._s3, _PARTS) as transfers:
                    transfers.upload(str(path), self._bucket, self._key(sha256), extra_args=extra).result()
        return sha256

    def _count_as_put(self, sha256: str) -> None:
        """Give the object a new date by copying it onto itself, at the server; the media type is kept."""
        with our_errors(self.url(sha256)):
            key = self._key(sha256)
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
            self._s3.copy_object(
                Bucket=self._bucket,
                Key=key,
                CopySource={"Bucket": self._bucket, "Key": key},
                MetadataDirective="REPLACE",
                ContentType=head.get("ContentType", ""),
            )

    def delete(self, sha256: str) -> None:
        with our_errors(self.url(sha256)):
            self._s3.delete_object(Bucket=self._bucket, Key=self._key(sha256))
        self._cache.delete(sha256)

    # --- reading ---

    def share(self, mark: str) -> None:
        with our_errors(self._address(USERS)):
            self._s3.put_object(Bucket=self._bucket, Key=self._prefix + USERS + mark, Body=b"")

    def sharers(self) -> frozenset[str]:
        folder = self._prefix + USERS
        with our_errors(self._address(USERS)):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder)
            return frozenset(found["Key"].removeprefix(folder) for page in pages for found in page.get("Contents", ()))

    def open(self, sha256: str) -> BinaryIO:
        return self.local_path(sha256).open("rb")

    def read(self, sha256: str) -> bytes:
        return self.local_path(sha256).read_bytes()

    def local_path(self, sha256: str) -> Path:
        if not self._cache.has(sha256):
            self._fetch(sha256)
        return self._cache.local_path(sha256)

    def _fetch(self, sha256: str) -> None:
        with our_errors(self.url(sha256)):
            try:
                answer = self._s3.get_object(Bucket=self._bucket, Key=self._key(sha256))
            except ClientError as error:
                if is_not_found(error):
                    raise missing(sha256, self._address("")) from error
                raise
            with closing(answer["Body"]) as body:
                try:
                    self._cache.put_chunks(body.iter_chunks(CHUNK_BYTES), answer.get("ContentType", ""), sha256)
                except BadInput as error:
                    raise BadInput(
                        f"{self.url(sha256)} holds other bytes than its name says: "
                        "delete that object and put the file again."
                    ) from error

    def has(self, sha256: str) -> bool:
        return self._head(sha256) is not None

    def size_bytes(self, sha256: str) -> int:
        head = self._head(sha256)
        if head is None:
            raise missing(sha256, self._address(""))
        return head["ContentLength"]

    def _head(self, sha256: str) -> HeadObjectOutputTypeDef | None:
        with our_errors(self.url(sha256)):
            try:
                return self._s3.head_object(Bucket=self._bucket, Key=self._key(sha256))
            except ClientError as error:
                if is_not_found(error):
                    return None
                raise

    def stored_at(self, sha256: str) -> datetime | None:
        head = self._head(sha256)
        return head["LastModified"].astimezone(UTC) if head is not None else None

    def digests(self) -> Iterator[str]:
        for sha256, _ in self._objects():
            yield sha256

    def digests_older_than(self, moment: datetime) -> Iterator[str]:
        for sha256, stored_at in self._objects():
            if stored_at < moment:
                yield sha256

    def _objects(self) -> Iterator[tuple[str, datetime]]:
        with our_errors(self._address("")):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for found in page.get("Contents", ()):
                    sha256 = found["Key"].rpartition("/")[2]
                    if is_digest(sha256) and found["Key"] == self._key(sha256):
                        yield sha256, found["LastModified"]

    # --- addresses ---

    def url(self, sha256: str) -> str:
        return self._address(self._key(sha256).removeprefix(self._prefix))

    def presign_get(self, sha256: str, valid_for: timedelta) -> str:
        place = {"Bucket": self._bucket, "Key": self._key(sha256)}
        return self._presign("get_object", place, valid_for)

    def presign_put(self, sha256: str, media_type: str, valid_for: timedelta) -> str:
        """The PUT must carry the headers of `naming.put_headers`: servers compare a checksum only when it is one.

        In the query AWS ignores it (aws/aws-sdk#480); as a signed header S3, R2 and SeaweedFS refuse other bytes.
        """
        place = {
            "Bucket": self._bucket,
            "Key": self._key(sha256),
            "ContentType": header_media_type(media_type),
            "ChecksumSHA256": base64_digest(sha256),
        }
        return self._presign("put_object", place, valid_for)

    def _presign(self, operation: str, place: dict[str, str], valid_for: timedelta) -> str:
        seconds = max(0, lifetime_seconds(valid_for))
        with our_errors(self._address("")):
            return self._s3.generate_presigned_url(operation, Params=place, ExpiresIn=seconds)

    # --- the bucket ---

    def bucket(self) -> tuple[S3Client, str, str]:
        """The client, the bucket's name and the prefix ("" or one that ends with a slash), for what else lies there."""
        return self._s3, self._bucket, self._prefix

    @property
    def _s3(self) -> S3Client:
        with self._opening:
            return self._client

    @cached_property
    def _client(self) -> S3Client:
        return open_s3(self._bucket, endpoint_url=self._endpoint_url, region=self._region)

    def _key(self, sha256: str) -> str:
        check_digest(sha256)
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    def _address(self, name: str) -> str:
        return f"s3://{self._bucket}/{quote(self._prefix + name)}"
