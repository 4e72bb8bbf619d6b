"""The handover in a bucket: what machines that hold none of our keys read from us and leave for us, by signed links.

s3://bucket/prefix/handover/files/<sha256>/<file name>    what they read
s3://bucket/prefix/handover/boxes/<box>/<name>            what they leave
"""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from botocore.exceptions import ClientError

from domain.errors import ResultExpired
from domain.jobs import BlobRef
from providers.blobs.handover import check_place, plain_name
from providers.blobs.naming import CHUNK_BYTES, check_digest, header_media_type, lifetime_seconds
from providers.blobs.s3 import S3BlobStore
from providers.blobs.s3_client import is_not_found, our_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

FOLDER = "handover/"


class StoreHandover:
    """`Handover` in the bucket of the blobs. A bucket's own rule may delete `handover/` after a few weeks."""

    def __init__(self, blobs: S3BlobStore) -> None:
        self._blobs = blobs

    def read_link(self, path: Path, ref: BlobRef, valid_for: timedelta) -> str:
        """As `Handover`: the blob is copied at the server once, to a key that ends with its file name."""
        s3, bucket, prefix = self._blobs.bucket()
        key = f"{prefix}{FOLDER}files/{check_digest(ref.sha256)}/{plain_name(ref.file_name)}"
        with our_errors(f"s3://{bucket}/{quote(key)}"):
            if not _is_there(s3, bucket, key):
                kind = header_media_type(ref.media_type)
                if self._blobs.has(ref.sha256):
                    source: CopySourceTypeDef = {"Bucket": bucket, "Key": f"{prefix}{ref.sha256[:2]}/{ref.sha256}"}
                    s3.copy_object(
                        Bucket=bucket, Key=key, CopySource=source, MetadataDirective="REPLACE", ContentType=kind
                    )  # fmt: skip
                else:
                    s3.upload_file(str(path), bucket, key, ExtraArgs={"ContentType": kind})
        return self._presign("get_object", key, valid_for)

    def write_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """As `Handover`. The link takes bytes of any digest and length: whoever fetches checks them."""
        return self._presign("put_object", self._key(box, name), valid_for)

    def read_back_link(self, box: str, name: str, valid_for: timedelta) -> str:
        """As `Handover`."""
        return self._presign("get_object", self._key(box, name), valid_for)

    def read(self, box: str, name: str, limit_bytes: int = 1_000_000) -> bytes | None:
        """As `Handover`; what is longer than the limit is cut."""
        s3, bucket, _ = self._blobs.bucket()
        key = self._key(box, name)
        with our_errors(f"s3://{bucket}/{quote(key)}"):
            try:
                answer = s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if is_not_found(error):
                    return None
                raise
            with closing(answer["Body"]) as body:
                return body.read(limit_bytes)

    def fetch(self, box: str, name: str, into: BinaryIO) -> None:
        """As `Handover`. Repeating it into the same stream begins anew where that stands."""
        s3, bucket, _ = self._blobs.bucket()
        key = self._key(box, name)
        with our_errors(f"s3://{bucket}/{quote(key)}"):
            try:
                answer = s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if is_not_found(error):
                    raise ResultExpired(f"The file {name} is not in the handover {box}.") from error
                raise
            with closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    into.write(chunk)

    def delete(self, box: str) -> None:
        """As `Handover`."""
        s3, bucket, prefix = self._blobs.bucket()
        folder = f"{prefix}{FOLDER}boxes/{check_place(box, 'x').removesuffix('x')}"
        with our_errors(f"s3://{bucket}/{quote(folder)}"):
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder)
            for key in [found["Key"] for page in pages for found in page.get("Contents", ())]:
                s3.delete_object(Bucket=bucket, Key=key)

    def _key(self, box: str, name: str) -> str:
        _, _, prefix = self._blobs.bucket()
        return f"{prefix}{FOLDER}boxes/{check_place(box, name)}"

    def _presign(self, operation: str, key: str, valid_for: timedelta) -> str:
        s3, bucket, _ = self._blobs.bucket()
        seconds = max(0, lifetime_seconds(valid_for))
        with our_errors(f"s3://{bucket}/{quote(key)}"):
            return s3.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds)


def _is_there(s3: S3Client, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
        return True
    except ClientError as error:
        if is_not_found(error):
            return False
        raise
