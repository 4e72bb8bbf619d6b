"""Planned answers under Replicate's names, for what the sandbox cannot play, and the adapter over either of the two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from pydantic import SecretStr

from domain.errors import NotConfigured
from domain.jobs import BlobRef, VendorJobIds, VendorRequest, blob_argument
from domain.registry import load_registry
from providers.replicate.vendor import ReplicateVendor
from providers.web import open_http
from tests.contract.fal_standin import StandIn, ToStandIn

TOKEN = "r8_not-a-real-token-0123456789"
API = "api.replicate.com/v1"
VERSION = "a" * 64
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ZIP = BlobRef(sha256="a" * 64, media_type="application/zip", file_name="set.zip")
STILL = VendorRequest(
    vendor="replicate",
    endpoint="black-forest-labs/flux-dev-lora",
    arguments={"prompt": "a harbour", "seed": 7},
)
CLIP = VendorRequest(vendor="replicate", endpoint="kwaivgi/kling-v2.1", arguments={"prompt": "a harbour"})
HUNYUAN = VendorRequest(
    vendor="replicate",
    endpoint=load_registry().model("hunyuan_video_lora_replicate").endpoint,
    arguments={"prompt": "x"},
)
TRAINING = VendorRequest(
    vendor="replicate",
    endpoint="ostris/flux-dev-lora-trainer",
    arguments={"input_images": blob_argument(ZIP), "steps": 1000},
)
IDS = VendorJobIds(request_id="job1")
JOB = f"{API}/predictions/job1"


def job(status: str = "succeeded", **facts: Any) -> dict[str, Any]:
    """A prediction as Replicate shows it, ended a minute before noon."""
    ended = (NOON - timedelta(minutes=1)).isoformat()
    shown = {"id": "job1", "model": STILL.endpoint, "status": status, "input": dict(STILL.arguments)}
    return {**shown, "output": None, "error": None, "data_removed": False, "completed_at": ended, **facts}


class ClockAtNoon:
    """`Clock` that stands still."""

    def now(self) -> datetime:
        return NOON

    def sleep(self, seconds: float) -> None:
        """Nothing here waits."""


class LinksOnly:
    """`Handover` that gives read links, or none at all where `is_local`."""

    def __init__(self, *, is_local: bool = False) -> None:
        self.is_local = is_local

    def read_link(self, path: Path, ref: BlobRef, valid_for: timedelta) -> str:
        if self.is_local:
            raise NotConfigured("The store is a folder of this machine.")
        return f"https://store.example/{ref.sha256}/{ref.file_name}?for={valid_for.total_seconds():g}"

    def write_link(self, box: str, name: str, valid_for: timedelta) -> str:
        raise NotImplementedError

    def read_back_link(self, box: str, name: str, valid_for: timedelta) -> str:
        raise NotImplementedError

    def read(self, box: str, name: str, limit_bytes: int = 1_000_000) -> bytes | None:
        raise NotImplementedError

    def fetch(self, box: str, name: str, into: BinaryIO) -> None:
        raise NotImplementedError

    def delete(self, box: str) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def vendor_at(
    server: StandIn, *, token: str = TOKEN, destination: str | None = "me/loras", is_local: bool = False
) -> Iterator[ReplicateVendor]:
    """The real adapter over real sockets to planned answers, with a short patience."""
    with open_http(ToStandIn(server.server_address[1]), timeout=httpx.Timeout(0.5)) as http:
        yield vendor_over(http, token=token, destination=destination, is_local=is_local)


def vendor_over(
    http: httpx.Client, *, token: str = TOKEN, destination: str | None = "me/loras", is_local: bool = False
) -> ReplicateVendor:
    return ReplicateVendor(
        http,
        SecretStr(token),
        load_registry(),
        handover=LinksOnly(is_local=is_local),
        destination=destination,
        clock=ClockAtNoon(),
    )
