"""How S3 and its like are reached: credentials, proxies, certificates, and botocore's errors in our words."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import NotConfigured, OnModelError, RateLimited, Rejected, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ANY_REGION = "auto"
"""The region of R2 and of servers that have none; at AWS the bucket's own is looked up."""

_SLOW_DOWN = frozenset({"SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests"})


def open_s3(bucket: str, *, endpoint_url: str | None, region: str) -> S3Client:
    """A client that has seen the bucket. Credentials come from AWS's usual variables, files and roles.

    Loopback is reached past any proxy. `NotConfigured` says what is missing: credentials, the bucket, or the right
    to use it.
    """
    with our_errors(f"s3://{bucket}"):
        core = botocore.session.get_session()
        # Reading what botocore knows of S3 takes longer than all the rest, and it never changes: once is enough.
        core.register_component("data_loader", _what_botocore_knows())
        session = boto3.Session(botocore_session=core)
        if session.get_credentials() is None:
            raise NotConfigured(
                f"There are no credentials for s3://{bucket}: "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )

        def client(region_name: str | None, proxies: dict[str, str] | None) -> S3Client:
            return session.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region_name,
                verify=None if core.get_config_variable("ca_bundle") else named_certificates(),
                config=Config(
                    # By itself boto3 presigns for other endpoints the old way, which refuses a PUT with a media type.
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    # We send our own SHA-256; the rest of what is new in botocore is unknown to many other servers.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    retries={"mode": "standard", "total_max_attempts": 3},
                    connect_timeout=15,
                    read_timeout=60,
                    proxies=proxies,
                ),
            )

        own_region = None if endpoint_url is None and region == ANY_REGION else region
        proxies: dict[str, str] | None = {} if _is_loopback(endpoint_url or "") else None
        s3 = client(own_region, proxies)
        if proxies is None and _is_loopback(s3.meta.endpoint_url):  # AWS's own variables named the server
            proxies = {}
            s3 = client(own_region, proxies)
        answer = s3.head_bucket(Bucket=bucket)
        home_region = answer.get("BucketRegion")
        if own_region is None and home_region and home_region != s3.meta.region_name:
            s3 = client(home_region, proxies)  # a presigned link cannot follow a redirect to the right region
        return s3


@cache
def _what_botocore_knows() -> Any:
    return botocore.session.get_session().get_component("data_loader")


@contextmanager
def our_errors(what: str) -> Iterator[None]:
    """Turn what botocore raises about `what` into errors of `domain.errors`."""
    try:
        yield
    except ClientError as error:
        raise _refusal(what, error) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise NotConfigured(f"The credentials for {what} are not complete: {error}") from error
    except BotoCoreError as error:
        if _is_setting(error):
            raise NotConfigured(f"{what} cannot be opened: {error}. Mend the AWS settings of this machine.") from error
        raise Unavailable(f"{what} could not be reached ({type(error).__name__}); it can be tried again.") from error


def is_not_found(error: ClientError) -> bool:
    """Is the object not there? (A HEAD has no body, so its code is the bare status.)"""
    return error.response["Error"].get("Code") in ("404", "NoSuchKey", "NotFound")


def _refusal(what: str, error: ClientError) -> OnModelError:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    seen = f"{status} {code}" if code != str(status) else code
    if code in _SLOW_DOWN or status == 429:
        return RateLimited(f"{what} asks for fewer requests ({seen}); it can be tried again in a while.")
    if status >= 500:
        return Unavailable(f"{what} answered {seen}; it can be tried again.")
    if status == 404:
        return NotConfigured(f"{what} does not exist ({seen}): create the bucket, or mend ONMODEL_STORAGE_URL.")
    if status in (301, 400) and error.operation_name == "HeadBucket":
        return NotConfigured(
            f"{what} was refused ({seen}): the credentials or the region are wrong; see ONMODEL_S3_REGION."
        )
    if status in (401, 403):
        return NotConfigured(
            f"{what} is closed to these credentials ({seen}): allow them to list, read, write and delete there."
        )
    return Rejected(f"{what} refused the request ({seen}): see the permissions and limits of that store.")


def _is_setting(error: BotoCoreError) -> bool:
    return isinstance(
        error,
        exceptions.ProfileNotFound
        | exceptions.ConfigParseError
        | exceptions.ConfigNotFound
        | exceptions.InvalidRegionError
        | exceptions.ParamValidationError
        | exceptions.CredentialRetrievalError
        | exceptions.TokenRetrievalError,
    )


def named_certificates() -> str | None:
    """The file of SSL_CERT_FILE where it is set: botocore reads only AWS_CA_BUNDLE by itself."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile if paths.cafile and paths.cafile != paths.openssl_cafile else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
