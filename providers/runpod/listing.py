"""RunPod's pods as it lists them, read strictly: whoever deletes what is not listed must not misread a list."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal

import httpx

from domain.errors import Unavailable
from domain.records import Record
from providers.runpod.client import RunPodClient, date_of, json_of, read_time, read_usd
from providers.vendor_ports import Pod

POD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""What may stand in a path: an id is the vendor's word and must not lead elsewhere."""


def list_pods(client: RunPodClient, doing: str) -> tuple[Pod, ...]:
    """Every pod of the account in one request; members of clusters are not among them.

    `Unavailable` when the list, or any entry of it, cannot be read. `started_at` is when the rent began: the earlier of
    creation and start, because pulling the image bills too (runpod_trainers.md 5.2).
    """
    response = client.look("GET", "/pods", doing)
    answer = json_of(response)
    entries = answer.get("pods") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise Unavailable(f"RunPod's list of pods could not be read when {doing}; it can be asked again.")
    return tuple(_entry(client, entry, place, doing) for place, entry in enumerate(entries, start=1))


class PodLook(Record):
    """A pod as one look shows it. `uptime_seconds` is how long its container runs, None while it does not; `gpu_count`
    what the container sees, None where it is not told; `seen_at` RunPod's own clock at the look."""

    pod: Pod
    uptime_seconds: float | None
    gpu_count: int | None
    seen_at: datetime | None


def read_pod(response: httpx.Response, doing: str) -> PodLook:
    """One pod. `Unavailable` when it cannot be read."""
    answer = json_of(response)
    pod = _pod(answer)
    if pod is None:
        raise Unavailable(f"RunPod's answer could not be read when {doing}; it can be asked again.")
    runtime = answer.get("runtime")
    told = runtime if isinstance(runtime, dict) else {}
    uptime, gpus = told.get("uptime", 0), told.get("gpus")
    is_number = isinstance(uptime, int | Decimal) and not isinstance(uptime, bool)
    return PodLook(
        pod=pod,
        uptime_seconds=None if runtime is None else float(uptime) if is_number else 0.0,
        gpu_count=len(gpus) if isinstance(gpus, list) else None,
        seen_at=date_of(response),
    )


def oldest_first(pods: tuple[Pod, ...]) -> list[Pod]:
    """By when their rent began; those that do not say come last."""
    known = [pod for pod in pods if pod.started_at is not None]
    return sorted(known, key=lambda pod: (_began(pod), pod.pod_id)) + [pod for pod in pods if pod.started_at is None]


def _entry(client: RunPodClient, entry: object, place: int, doing: str) -> Pod:
    pod = _pod(entry)
    if pod is None:
        shown = client.quote(sorted(entry) if isinstance(entry, dict) else type(entry).__name__)
        raise Unavailable(
            f"Entry {place} of RunPod's list of pods could not be read when {doing} (it has {shown}); "
            "nothing is concluded from such a list."
        )
    return pod


def _pod(entry: object) -> Pod | None:
    if not isinstance(entry, dict):
        return None
    pod_id, name, status = entry.get("id"), entry.get("name"), entry.get("status")
    if not isinstance(pod_id, str) or not isinstance(name, str) or not isinstance(status, str):
        return None
    if POD_ID.fullmatch(pod_id) is None or not status:
        return None
    times = [when for when in (read_time(entry.get("createdAt")), read_time(entry.get("startedAt"))) if when]
    return Pod(
        pod_id=pod_id,
        name=name,
        status=status,
        cost_usd_per_hour=read_usd(entry.get("cost")),
        started_at=min(times) if times else None,
    )


def _began(pod: Pod) -> datetime:
    assert pod.started_at is not None
    return pod.started_at
