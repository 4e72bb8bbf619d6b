"""`onmodel jobs`: what was bought, everything that happened to a job, and a person's word about one that is lost."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from domain.errors import BadInput, NeedsPerson, Unavailable
from domain.jobs import JobState, ProviderJob
from domain.spending import zone_of
from domain.submissions import Choice
from providers.wiring import open_ports
from studio.telling import print_json, print_table, say, tell_progress

if TYPE_CHECKING:
    from providers.wiring import Ports

KEY_LETTERS = 12
RUN_AGAIN = "onmodel run season.yaml"
STATE_WORDS = {JobState.SUBMISSION_UNKNOWN: "answer lost"}
"""In tables; the JSON documents have the words of the ledger."""


def list_jobs_of(slug: str, *, every: bool, as_json: bool) -> int:
    """The jobs of a season that are not over or wait for a word, or with `every` all of them.

    Exit 0; 2 when there is no such season.
    """
    ports = open_ports()
    season = ports.seasons.by_slug(slug)
    jobs = ports.ledger.jobs_of_season(season.id)
    if not every:
        jobs = [job for job in jobs if not job.is_over or job.needs_word]
    if as_json:
        print_json({"season": slug, "jobs": [_document(ports, job) for job in jobs]})
        return 0
    if not jobs:
        say(f"{slug} has no jobs yet." if every else f"{slug} has no jobs under way; all of them: --all")
        return 0
    rows = [
        [job.key[:KEY_LETTERS], _state(job), _whom(ports, job), job.api_name, job.request.vendor, _money(job)]
        for job in jobs
    ]
    title = f"{slug}: all jobs" if every else f"{slug}: jobs under way"
    print_table(title, ["job", "state", "for", "what", "at", "USD"], rows, right=(5,))
    if any(not job.is_over for job in jobs):
        say("≤ is what is reserved. More of one: onmodel jobs show KEY")
    return 0


def show_one_job(beginning: str, *, as_json: bool) -> int:
    """Everything about one job, with what may be done now. Exit 0; 2 when no one job's key begins so."""
    ports = open_ports()
    job = ports.ledger.find(beginning)
    if as_json:
        events = [event.model_dump(mode="json") for event in ports.ledger.events(job.key)]
        print_json({**_document(ports, job), "events": events, "now": _what_now(ports, job)})
        return 0
    zone = zone_of(ports.seasons.get(job.season_id).time_zone)
    for head, words in _facts(ports, job, zone):
        say(f"{head + ':':9}{words}", hang=9)
    say()
    rows = [[_at(event.at, zone), event.to_state.value, _plain(event.detail)] for event in ports.ledger.events(job.key)]
    print_table("What happened", ["when", "became", "why"], rows)
    say()
    for line in _what_now(ports, job):
        say(line, hang=2)
    return 0


def resolve_lost_job(beginning: str, *, adopt: str | None, resubmit: bool, abandon: bool, as_json: bool) -> int:
    """Do what a person decides about a job whose answer was lost. Exit 0; 2 where it does not fit.

    Sends nothing: the next run does. `Unavailable` (5) while another process is at work on the job.
    """
    chosen = [
        choice
        for choice, is_chosen in (
            (Choice.ADOPT, adopt is not None),
            (Choice.RESUBMIT, resubmit),
            (Choice.ABANDON, abandon),
        )
        if is_chosen
    ]
    if len(chosen) != 1:
        raise BadInput("Choose one of --adopt ID, --resubmit and --abandon; see: onmodel jobs resolve --help")
    ports = open_ports()
    from tasks.lost_answers import resolve

    tell_progress()
    job = ports.ledger.find(beginning)
    with ports.ledger.submitter(job.key) as hold:
        if not hold.is_ours:
            raise Unavailable(
                f"Another process is at work on job {job.key[:KEY_LETTERS]} right now: wait until it has told what "
                f"became of it, or end it, then say this again. Nothing was changed."
            )
        job = resolve(ports, job.key, chosen[0], adopt)
    said = _said_after(chosen[0], job)
    if as_json:
        print_json({**_document(ports, job), "now": said})
    else:
        say(said)
    return 0


def cancel_jobs_of(slug: str, beginning: str | None, *, as_json: bool) -> int:
    """Stop one open job of a season, or all. Exit 0; 6 when one is not over yet or waits for a person; 2 for bad input.

    What turns out to be done is kept. Safe to repeat.
    """
    ports = open_ports()
    from tasks.cancelling import cancel_job, cancel_jobs_of_season

    tell_progress()
    season = ports.seasons.by_slug(slug)
    if beginning is None:
        ended = dict(cancel_jobs_of_season(ports, season.id))
    else:
        job = ports.ledger.find(beginning)
        if job.season_id != season.id:
            raise BadInput(f"Job {job.key[:KEY_LETTERS]} is not of {slug}: see onmodel jobs list {slug}")
        ended = {job.key: cancel_job(ports, job.key)}
    jobs = [ports.ledger.get(key) for key in ended]
    if as_json:
        print_json({"season": slug, "jobs": [_document(ports, job) for job in jobs]})
    elif not jobs:
        say(f"{slug} has no jobs under way.")
    else:
        rows = [
            [job.key[:KEY_LETTERS], _state(job), _whom(ports, job), job.api_name, job.request.vendor, _money(job)]
            for job in jobs
        ]
        print_table(f"{slug}: what became of its jobs", ["job", "now", "for", "what", "at", "USD"], rows, right=(5,))
        for job in jobs:
            if not job.is_over:
                say(f"{job.key[:KEY_LETTERS]}:")
                for line in _what_now(ports, job):
                    say(f"  {line}", hang=4)
    return 0 if all(job.is_over for job in jobs) else NeedsPerson.exit_code


# --- words ---


def _what_now(ports: Ports, job: ProviderJob) -> list[str]:
    """What a person may do about a job as it stands, a line each."""
    slug, key = ports.seasons.get(job.season_id).slug, job.key[:KEY_LETTERS]
    cancel = f"To stop it: onmodel jobs cancel {slug} {key}"
    match job.state:
        case JobState.PLANNED:
            return [f"It is sent by the next run: {RUN_AGAIN}", cancel]
        case JobState.SUBMITTING:
            return ["A process is sending it now, or died while it did: the next run, or onmodel maintain, sees to it."]
        case JobState.SUBMISSION_UNKNOWN:
            return [
                f"It may be running and paid for, so it is not sent again. Look at {job.request.vendor}'s own list.",
                f"If it is there:    onmodel jobs resolve {key} --adopt ID",
                f"If it is not:      onmodel jobs resolve {key} --resubmit",
                f"To give it up:     onmodel jobs resolve {key} --abandon",
            ]
        case JobState.SUBMITTED | JobState.RUNNING:
            return [
                f"It is followed by a run, or by onmodel maintain. {cancel}",
                f"If {job.request.vendor} never ends it: onmodel jobs resolve {key} --abandon",
            ]
    if job.needs_word:
        return [
            "It may have been paid and has no result, so it is not bought again by itself.",
            f"To buy it again:    onmodel jobs resolve {key} --resubmit",
            f"To do without it:   onmodel jobs resolve {key} --abandon",
        ]
    if job.moved_to is not None:
        return [f"It moved to another vendor: onmodel jobs show {job.moved_to[:KEY_LETTERS]}"]
    if job.state is JobState.CANCELLED:
        return [f"It is over. Where it is still wanted, the next run buys it anew: {RUN_AGAIN}"]
    return ["It is over; nothing is left to do."]


def _said_after(choice: Choice, job: ProviderJob) -> str:
    key = job.key[:KEY_LETTERS]
    if job.state in (JobState.SUBMITTED, JobState.RUNNING):
        which = f"request {job.ids.request_id}" if job.ids else "its request"
        found = "" if choice is Choice.ADOPT else "The vendor's answer was found on this machine after all: "
        return f"{found}Job {key} is adopted as {which} and is followed to its end by: {RUN_AGAIN}"
    if job.state is JobState.PLANNED:
        return f"Job {key} is planned again; it is sent once more by: {RUN_AGAIN}"
    if job.error_class == "Released":
        return f"The work of job {key} is bought again by: {RUN_AGAIN}"
    if job.error_class == "GivenUp":
        return f"Job {key} stays as it ended, and its slot or character goes on without it: {RUN_AGAIN}"
    return (
        f"Job {key} is given up; {job.billed_usd or 0:.2f} USD count as spent, because it may have been paid. Where it "
        f"is still wanted, the next run buys it anew: {RUN_AGAIN}"
    )


def _facts(ports: Ports, job: ProviderJob, zone: tzinfo) -> list[tuple[str, str]]:
    season = ports.seasons.get(job.season_id)
    facts = [
        ("Job", job.key),
        ("What", f"{job.api_name} ({job.operation.value}) for {_whom(ports, job)} of {season.slug}"),
        ("Attempt", str(job.attempt)),
        ("Vendor", f"{job.request.vendor}, {job.request.endpoint}{' (simulated)' if job.is_simulated else ''}"),
        ("State", _state(job)),
    ]
    if job.ids is not None:
        facts.append(("Request", _plain(job.ids.request_id)))
    if job.submitting_at is not None:
        times = "once" if job.post_count == 1 else f"{job.post_count} times"
        facts.append(("Sent", f"{times}, last at {_at(job.submitting_at, zone)}"))
    if job.not_before is not None and job.state is JobState.PLANNED:
        facts.append(("Waits", f"not sent again before {_at(job.not_before, zone)}"))
    facts.append(("Money", _whole_money(job)))
    facts += [("File", f"{file.role}: sha256 {file.sha256}") for file in job.files]
    if job.error_message:
        facts.append(("Error", _plain(f"{job.error_class}: {job.error_message}")))
    if job.fallbacks:
        facts.append(("Next", "could move to " + ", ".join(order.request.vendor for order in job.fallbacks)))
    if job.cancel_requested_at is not None:
        facts.append(("Stop", f"the vendor was asked to stop it at {_at(job.cancel_requested_at, zone)}"))
    return facts


def _document(ports: Ports, job: ProviderJob) -> dict[str, Any]:
    """A job as plain data, without addresses: they may hold tokens."""
    plain = {
        "key",
        "attempt",
        "slot_number",
        "stage",
        "operation",
        "api_name",
        "model_key",
        "state",
        "not_before",
        "error_class",
        "error_message",
        "estimate_usd",
        "ceiling_usd",
        "billed_usd",
        "is_simulated",
        "post_count",
        "submitting_at",
        "submitted_at",
        "created_at",
        "heartbeat_at",
        "finished_at",
        "waited_seconds",
        "cancel_requested_at",
        "moved_to",
    }
    return {
        **job.model_dump(mode="json", include=plain),
        "season": ports.seasons.get(job.season_id).slug,
        "character": ports.cast.get(job.character_id).name if job.character_id is not None else None,
        "vendor": job.request.vendor,
        "endpoint": job.request.endpoint,
        "request_id": job.ids.request_id if job.ids else None,
        "files": [file.model_dump(mode="json", exclude={"url"}) for file in job.files],
        "could_move_to": [order.request.vendor for order in job.fallbacks],
    }


def _whom(ports: Ports, job: ProviderJob) -> str:
    if job.slot_number is not None:
        return f"slot {job.slot_number}"
    return ports.cast.get(job.character_id).name if job.character_id is not None else "the season"


def _state(job: ProviderJob) -> str:
    if job.moved_to is not None:
        return "moved"
    return STATE_WORDS.get(job.state, job.state.value)


def _money(job: ProviderJob) -> str:
    if job.is_over:
        return f"{job.billed_usd or 0:.2f}"
    return f"≤ {job.ceiling_usd:.2f}"


def _whole_money(job: ProviderJob) -> str:
    foreseen = f"{job.estimate_usd} USD expected"
    if job.is_over:
        return f"{foreseen}, {job.billed_usd or 0} charged"
    return f"{foreseen}, {job.ceiling_usd} reserved"


def _at(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def _plain(text: str) -> str:
    """A vendor's words without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)
