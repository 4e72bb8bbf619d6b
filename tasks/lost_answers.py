"""Jobs whose answer was lost: looked up and adopted by itself, sent again only on proof, else decided by a person."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from domain.costs import job_cost
from domain.errors import BadInput, OutOfCredit, Retryable, SubmissionUnknown
from domain.jobs import JobState, ProviderJob, VendorJobIds, VendorState
from domain.submissions import Choice, Finding, LookUp, last_submission
from tasks.insisting import take_up_note

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.jobs")

LIST_LOOKS = 3
"""Looks at the list of a vendor that cannot prove absence: its list may lag behind its queue by seconds."""

LIST_SECONDS_APART = 4.0
"""At most; on the sandbox, which is polled often and whose list never lags, less."""

RELEASED = "Released"
GIVEN_UP = "GivenUp"
"""A person's word on a job that may have been paid without a result: buy the work again, or do without."""

MOST_RESENDS = 3
"""A request that breaks its vendor's answer each time would otherwise be sent for ever, however absent it is."""

KNOWN_FOR = timedelta(days=30)
"""Ids of our own jobs are left out of a look-up for as long as fal is said to keep payloads (fal.md 1.4)."""


def look_up_lost(ports: Ports, key: str) -> None:
    """Find out what became of a lost job: it is adopted, or planned again where its vendor proves that it has none.

    `SubmissionUnknown` with the choices when neither: it then waits for a person. Free, and safe to repeat; the caller
    holds the right to submit this job, so that nobody is sending it meanwhile.
    """
    job = ports.ledger.get(key)
    if job.state is not JobState.SUBMISSION_UNKNOWN or take_up_note(ports, key):
        return
    vendor = ports.job_vendor(job.request.vendor)
    submission, rule = last_submission(job), vendor.absence
    looks, apart = (rule.looks, rule.seconds_apart) if rule.can_prove else (LIST_LOOKS, _list_seconds(ports, job))
    # The sender's clock may be behind ours, and its POST younger than it looks: the database's clock must agree.
    age = min((ports.clock.now() - submission.sent_at).total_seconds(), ports.ledger.seconds_since_claim(key))
    ports.clock.sleep(min(max(rule.after_seconds - age, 0.0), rule.after_seconds))
    absent = 0
    seen = "it was not looked up"
    for look in range(looks):
        if look:
            ports.clock.sleep(apart)
        try:
            known = ports.ledger.request_ids(job.request.vendor, ports.clock.now() - KNOWN_FOR)
            found = vendor.look_up(job.request, submission, known)
        except (Retryable, OutOfCredit) as error:
            seen = f"{job.request.vendor} could not be asked: {error.message}"
            continue
        seen = _told(found)
        if found.ids is not None and found.finding is Finding.FOUND:
            try:
                ports.ledger.adopt(key, found.ids, f"adopted: {found.detail}")
            except BadInput:
                # Another lost job that looks the same was found as it first: nobody can tell which of the two is there.
                seen = f"the only request like it, {found.ids.request_id}, belongs to another job of ours"
                break
            log.warning("%s was lost and is found at %s: %s", job.api_name, job.request.vendor, found.detail)
            return
        is_absent = found.finding is Finding.ABSENT
        absent += is_absent
        ports.ledger.note_look_up(key)
    if rule.can_prove and absent == looks and ports.ledger.times_resent(key) >= MOST_RESENDS:
        seen = f"{seen}; it was sent {job.post_count} times and its answer was lost each time, so something is wrong"
    elif rule.can_prove and absent == looks:
        ports.ledger.plan_again(key, f"{job.request.vendor} does not have it, seen {looks} times: {seen}")
        log.warning("%s never reached %s and is sent again", job.api_name, job.request.vendor)
        return
    raise SubmissionUnknown(choices(job, seen))


def resolve(ports: Ports, key: str, choice: Choice, request_id: str | None = None) -> ProviderJob:
    """What a person decides about a lost job, one that runs past its limit, or one that ended without a result.

    ADOPT takes it up under the vendor's `request_id` (asked for first; free). RESUBMIT lets it be sent again: it may
    be paid twice if the vendor has it after all. ABANDON ends it; its estimate counts as spent, because it may have
    been paid. Of one that ended without a result (`ProviderJob.needs_word`) RESUBMIT lets the work be bought again by
    the next run, and ABANDON leaves it, so that a slot takes its next way. Where this machine still has the vendor's
    answer on paper, it is adopted whatever was chosen. `BadInput` where the choice does not fit.
    """
    job = ports.ledger.get(key)
    is_lost = job.state is JobState.SUBMISSION_UNKNOWN
    if is_lost and take_up_note(ports, key):
        log.warning("The vendor's answer to %s was found on this machine: it is adopted, nothing else was done", key)
        return ports.ledger.get(key)
    if job.needs_word and choice is not Choice.ADOPT:
        is_again = choice is Choice.RESUBMIT
        why = "a person wants it bought again" if is_again else "a person does without it"
        ports.ledger.decide(key, RELEASED if is_again else GIVEN_UP, why)
        return ports.ledger.get(key)
    if not is_lost and not (choice is Choice.ABANDON and job.state in (JobState.SUBMITTED, JobState.RUNNING)):
        raise BadInput(
            f"Job {key[:12]} is {job.state}: only a job whose answer was lost can be resolved"
            f"{'; it goes on by itself with the next run' if not job.is_over else ''}."
        )
    match choice:
        case Choice.ADOPT:
            if not request_id or len(request_id) > 200 or not request_id.isprintable():
                raise BadInput("Give the vendor's request id: onmodel jobs resolve KEY --adopt ID")
            ids = VendorJobIds(request_id=request_id)
            status = ports.job_vendor(job.request.vendor).status(job.request, ids)
            if status.state is VendorState.GONE:
                raise BadInput(f"{job.request.vendor} knows no request {request_id}: copy the id from its own list.")
            ports.ledger.adopt(key, ids, f"adopted by a person as {request_id}")
        case Choice.RESUBMIT:
            ports.ledger.plan_again(key, "a person says that the vendor does not have it")
        case Choice.ABANDON:
            why = "given up by a person; it may have been paid, so its estimate counts as spent"
            ports.ledger.end(key, JobState.CANCELLED, "Abandoned", why, job_cost(job, job.estimate_usd, why))
    return ports.ledger.get(key)


def choices(job: ProviderJob, seen: str) -> str:
    """What a person is told of a job whose answer was lost."""
    command = f"onmodel jobs resolve {job.key[:12]}"
    return (
        f"Job {job.key[:12]} ({job.api_name} at {job.request.vendor}) was sent, but its answer was lost "
        f"({job.error_message}). It may be running and paid for, so it is not sent again; {seen}. "
        f"Look at {job.request.vendor}'s own list of requests. If it is there: {command} --adopt ID; if it is not: "
        f"{command} --resubmit; to give it up: {command} --abandon. Then run again."
    )


def _list_seconds(ports: Ports, job: ProviderJob) -> float:
    return min(LIST_SECONDS_APART, 4 * ports.poll_seconds(job))


def _told(found: LookUp) -> str:
    if found.candidates:
        return f"{found.detail} (it may be one of {', '.join(found.candidates[:5])})"
    return found.detail
