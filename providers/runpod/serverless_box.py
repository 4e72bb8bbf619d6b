"""What our serverless worker leaves in a job's box of the handover: the picture, and status.json that tells of it.

Whoever holds the link can write there, so everything read here is checked.
"""

from __future__ import annotations

import json
import re
from typing import Any

from domain.records import Record
from domain.submissions import Submission
from providers.vendor_ports import Handover

PICTURE = "image.png"
STATUS = "status.json"
BOX_SCHEME = "box"
"""Begins the addresses of boxes and of what lies in them, `box:NAME/image.png#SHA256`, which nobody else reads."""

BOX = re.compile(r"[a-z0-9-]{1,80}")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_STATES = ("running", "completed", "failed")


class Report(Record):
    """What the worker says of a job: which it is, how far it is, and of its picture the digest, size and seed."""

    job_id: str
    state: str
    box: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    seed: int | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("completed", "failed")

    @property
    def is_done(self) -> bool:
        return self.state == "completed"

    @classmethod
    def of_output(cls, job_id: str, output: dict[str, Any]) -> Report:
        """A finished job's `output`, as RunPod hands it on."""
        box, sha256 = output.get("box"), output.get("sha256")
        return cls(
            job_id=job_id,
            state="completed",
            box=box if isinstance(box, str) and BOX.fullmatch(box) else None,
            sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
            size_bytes=_whole(output.get("size_bytes")),
            seed=_whole(output.get("seed")),
        )


def box_of(submission: Submission) -> str:
    """The box of the job that this POST asks for, and of no other."""
    return f"serverless-{submission.mark}"


def read_report(handover: Handover, box: str) -> Report | None:
    """The box's status.json; None where there is none, or none that can be read. `Unavailable` as `Handover.read`."""
    raw = handover.read(box, STATUS)
    if raw is None:
        return None
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("job_id"), str) or told.get("state") not in _STATES:
        return None
    output, error = told.get("output"), told.get("error")
    words = error.get("message") if isinstance(error, dict) else None
    report = Report.of_output(told["job_id"], output if isinstance(output, dict) else {})
    return report.model_copy(
        update={"state": told["state"], "error": words if isinstance(words, str) and words else None}
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
