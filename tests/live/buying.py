"""Buying one job of a real vendor without the ledger: sent once, watched, and stopped when it takes too long."""

from __future__ import annotations

import os
import secrets
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from domain.jobs import BlobRef, JobOutput, VendorRequest, VendorState
from domain.submissions import Submission
from providers.vendor_ports import JobVendor
from providers.wiring import Ports

BUDGET = os.environ.get("ONMODEL_LIVE_BUDGET_USD") or ""
UNDER_WAY = (VendorState.QUEUED, VendorState.RUNNING)


def skip_above_budget(what: str, ceiling_usd: Decimal) -> None:
    """Skips the test when the job may cost more than ONMODEL_LIVE_BUDGET_USD."""
    if ceiling_usd > Decimal(BUDGET):
        pytest.skip(f"{what} may cost {ceiling_usd} USD and ONMODEL_LIVE_BUDGET_USD is {BUDGET}")


def sent(url_of: dict[str, str] | None = None) -> Submission:
    """A POST of a job that nobody has ordered before."""
    return Submission(
        installation=secrets.token_hex(4),
        job_key=secrets.token_hex(20),
        number=1,
        sent_at=datetime.now(UTC),
        url_of=url_of or {},
    )


def uploaded(ports: Ports, vendor: JobVendor, request: VendorRequest) -> dict[str, str]:
    """Where the vendor reads each file of the request, out of our store."""
    return {ref.sha256: vendor.upload(ports.blobs.local_path(ref.sha256), ref) for ref in request.blobs()}


def stored(ports: Ports, path: Path, media_type: str) -> BlobRef:
    """A file as a job's argument."""
    return BlobRef(sha256=ports.blobs.put_file(path, media_type), media_type=media_type, file_name=path.name)


def bought(
    vendor: JobVendor, request: VendorRequest, submission: Submission, *, look_every: float, patience: float
) -> JobOutput:
    """Send once, look every so many seconds, and read the outcome; a job that takes longer than `patience` seconds, or
    ends badly, is cancelled, so that nothing goes on costing."""
    ids = vendor.submit(request, submission)
    pause = threading.Event()
    try:
        for _ in range(int(patience / look_every)):
            status = vendor.status(request, ids)
            if status.state not in UNDER_WAY:
                break
            pause.wait(look_every)
        assert status.state is VendorState.DONE, status
        return vendor.output(request, ids)
    finally:
        vendor.cancel(request, ids)
