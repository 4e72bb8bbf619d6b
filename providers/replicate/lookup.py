"""Looking for a job at Replicate whose answer was lost: its lists of predictions and trainings, against what we sent.

The lists: 100 to a page, the next page's address in `next`, `created_after` for predictions (replicate_comfyui.md 1.1).
Not confirmed: whether a list shows each job's input, how soon a job is listed, and whether the input is what we sent
to the letter. So a job that shows none is read by itself, and nothing here proves that a job does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx

from domain.errors import Unavailable
from domain.jobs import VendorRequest
from domain.records import Record
from domain.registry import Registry
from domain.submissions import AbsenceRule, LookUp, Submission
from providers.lost_jobs import Sifted, is_same_json, since_of
from providers.replicate.client import ReplicateClient, may_carry_token
from providers.replicate.jobs import is_training
from providers.replicate.queue import job_url
from providers.vendor_words import in_zulu, json_of, moment

ABSENCE = AbsenceRule(
    can_prove=False,
    reason=(
        "Replicate's list can show a job, but not prove that there is none: it may lag, "
        "and Replicate takes no name of ours to look for"
    ),
)

MOST_PAGES = 50
MOST_READ = 200
"""How many jobs without an input in the list are read one by one."""


class _Listed(Record):
    """One job of the list. `input` None: not shown; `created_at` None: not said; `model` '': not said."""

    job_id: str
    model: str
    input: Any
    created_at: datetime | None


class ReplicateLookUp:
    """The look-up of `JobQueue` at Replicate."""

    def __init__(self, client: ReplicateClient, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    def look_up(self, request: VendorRequest, submission: Submission, known_ids: frozenset[str]) -> LookUp:
        """Found when exactly one job not yet ours, made since two minutes before our POST, has our very input.

        Several such, or ones whose input is not shown: unclear, with their ids. Reads every page first. `Unavailable`
        when the list could not be read whole; `NotConfigured` or `OutOfCredit` on 401, 402, 403.
        """
        since, sifted = since_of(submission), Sifted()
        of_training = is_training(self._registry, request)
        ours, name = request.with_urls(submission.url_of), request.endpoint.partition(":")[0]
        read = 0
        for listed in self._jobs(since, of_training=of_training):
            if listed.job_id in known_ids or listed.model not in ("", name):
                continue
            sifted.see()
            given = listed.input
            if given is None and read < MOST_READ:
                read += 1
                given = self._input_of(listed.job_id, of_training=of_training)
            if given is None:
                sifted.maybe(listed.job_id)
            elif is_same_json(given, ours):
                (sifted.maybe if listed.created_at is None else sifted.equal)(listed.job_id)
        return sifted.verdict(
            f"Replicate's list of {'trainings' if of_training else 'predictions'} since {in_zulu(since)}",
            f"jobs of {name}",
            lambda job_id: f"Replicate lists the job {job_id} with our input, made since {in_zulu(since)}",
        )

    def _jobs(self, since: datetime, *, of_training: bool) -> Iterator[_Listed]:
        """Every job made since then, newest first as Replicate lists them; a job that is older ends the reading."""
        path = "/trainings" if of_training else "/predictions"
        # Only the list of predictions is documented to take a time.
        url = path if of_training else str(httpx.URL(path, params={"created_after": in_zulu(since)}))
        read: set[str] = set()
        for _ in range(MOST_PAGES):
            response = self._client.look("GET", url)
            self._client.check_look(response, "looking up a lost job")
            page = json_of(response)
            results = page.get("results") if isinstance(page, dict) else None
            if not isinstance(page, dict) or not isinstance(results, list):
                raise Unavailable("Replicate's list of jobs has no results that can be read; it can be asked again.")
            listed = [_read(item) for item in results]
            yield from (one for one in listed if one.created_at is None or one.created_at >= since)
            following = page.get("next")
            if not following or (listed and all(one.created_at and one.created_at < since for one in listed)):
                return
            if not isinstance(following, str) or not may_carry_token(following) or following in read:
                raise Unavailable("Replicate's list of jobs says that it goes on and not where; it can be asked again.")
            read.add(following)
            url = following
        raise Unavailable(f"Replicate's list of jobs has more than {MOST_PAGES} pages: look on its dashboard.")

    def _input_of(self, job_id: str, *, of_training: bool) -> Any:
        response = self._client.look("GET", job_url(job_id, of_training=of_training))
        if response.status_code in (404, 410):
            return None
        self._client.check_look(response, "looking up a lost job")
        return _shown_input(json_of(response))


def _read(item: object) -> _Listed:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        raise Unavailable("Replicate's list of jobs holds one without an id; it can be asked again.")
    model = item.get("model")
    return _Listed(
        job_id=item["id"],
        model=model if isinstance(model, str) else "",
        input=_shown_input(item),
        created_at=moment(item.get("created_at")),
    )


def _shown_input(job: object) -> Any:
    """What was sent; None where it is not shown any more, or was not."""
    if not isinstance(job, dict) or job.get("data_removed") is True:
        return None
    given = job.get("input")
    return given if isinstance(given, dict) and given else None
