"""The ledger against what a vendor says it charged: job by job where the vendor names them, else by model and day.

Only reads. A correction of the ledger would be a new cost entry; nothing here writes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from domain.errors import NotConfigured
from domain.jobs import ProviderJob
from domain.records import Record
from domain.registry import load_registry
from domain.vendors import is_stand_in
from providers.vendor_ports import UsageLine
from providers.wiring import Ports

CENT = Decimal("0.01")
"""Sums that differ by no more agree: vendors count in smaller units than our four decimals."""

BILLING_LAG = timedelta(hours=1)
"""A job that ended so lately need not be on the vendor's list yet. fal's charges appear within minutes (read 2026-11 in
several public clients of its billing-events, which ask again for up to a quarter of an hour)."""

REACH = timedelta(days=1)
"""How much further back than the span both sides are read: a job may be settled on one side of its beginning and
charged on the other."""

LONGEST_JOB = timedelta(days=30)
"""How long before the span a job may have been made that is charged within it."""

FREE = Decimal(0)


class Disagreement(StrEnum):
    """In which way ledger and vendor differ."""

    NOT_IN_LEDGER = "not_in_ledger"
    NOT_BILLED = "not_billed"
    AMOUNT = "amount"


class Difference(Record):
    """One thing on which ledger and vendor differ.

    `subject` is the vendor's id of a job, or of a model, which `day` stands with; `what` is our name of it, if any.
    """

    kind: Disagreement
    subject: str
    what: str
    day: date | None = None
    job_key: str | None = None
    season_id: int | None = None
    vendor_usd: Decimal
    ledger_usd: Decimal

    @property
    def difference_usd(self) -> Decimal:
        """What the vendor charged beyond the ledger; negative when it charged less."""
        return self.vendor_usd - self.ledger_usd


class Reconciliation(Record):
    """What comparing one vendor came to. Sums are of the span, in USD.

    `recent` jobs ended too lately to be charged for sure, `unsettled` ones are charged and not settled here yet:
    neither is a difference. `not_compared` is the reason where there was nothing to compare with (`vendor_usd` is 0).
    """

    vendor: str
    since: datetime
    until: datetime
    is_simulated: bool
    is_by_job: bool = True
    vendor_usd: Decimal = FREE
    ledger_usd: Decimal
    job_count: int
    differences: tuple[Difference, ...] = ()
    recent: int = 0
    unsettled: int = 0
    not_compared: str = ""

    @property
    def needs_person(self) -> bool:
        """Whether somebody must look: they differ, or money was spent and the vendor cannot be asked for what."""
        return bool(self.differences) or bool(self.not_compared and self.ledger_usd > 0)


def reconcile(ports: Ports, vendor: str, since: datetime, until: datetime) -> Reconciliation:
    """Compare from the beginning of the UTC day of `since` to before `until`. Free, changes nothing, repeatable.

    A vendor that has no list of charges, or shows it to other keys only, is named as such in `not_compared`.
    `NotConfigured` for a vendor that is not set up here; `Retryable` or `OutOfCredit` when it could not be asked.
    """
    since = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    jobs = ports.ledger.settled_jobs(vendor, since - REACH, until)
    ours = [job for job in jobs if job.finished_at is not None and job.finished_at >= since]
    plain = Reconciliation(
        vendor=vendor,
        since=since,
        until=until,
        is_simulated=is_stand_in(vendor),
        ledger_usd=_billed(ours),
        job_count=len(ours),
    )
    try:
        lines = ports.usage_reader(vendor).usage(since - REACH, until)
    except NotConfigured as reason:
        if vendor not in ports.vendors_set_up():
            raise
        return plain.model_copy(update={"not_compared": reason.message})
    return compared(plain, lines, jobs, ports.ledger.request_ids(vendor, since - LONGEST_JOB))


def compared(
    plain: Reconciliation, lines: Sequence[UsageLine], jobs: Sequence[ProviderJob], known_ids: frozenset[str]
) -> Reconciliation:
    """`plain` with the sums and differences filled in. Pure.

    `lines` and `jobs` reach one `REACH` further back than the span, for what was charged on its other side.
    `known_ids` are the vendor's ids of all jobs of ours, settled or not.
    """
    single = [line for line in lines if line.is_single_job]
    sums = [line for line in lines if not line.is_single_job and line.ended_at > plain.since]
    by_job, settled, recent, unsettled = _by_job(plain, single, jobs, known_ids)
    if sums:
        rest = [job for job in jobs if job.key not in settled and _ended(job) >= plain.since]
        by_day, recent = _by_model_and_day(plain, sums, rest)
        # What the vendor sums up is judged there, once.
        by_job = [one for one in by_job if one.kind is not Disagreement.NOT_BILLED] + by_day
    in_span = [*(line for line in single if line.ended_at >= plain.since), *sums]
    return plain.model_copy(
        update={
            "is_by_job": not sums,
            "vendor_usd": sum((line.amount_usd for line in in_span), FREE),
            "differences": tuple(by_job),
            "recent": recent,
            "unsettled": unsettled,
        }
    )


def _by_job(
    plain: Reconciliation, lines: Iterable[UsageLine], jobs: Iterable[ProviderJob], known_ids: frozenset[str]
) -> tuple[list[Difference], set[str], int, int]:
    """Differences, the keys of jobs that the vendor names, and how many are recent and unsettled."""
    job_of = {job.ids.request_id: job for job in jobs if job.ids is not None}
    charged: dict[str, list[UsageLine]] = defaultdict(list)
    for line in lines:
        charged[line.subject].append(line)
    found: list[Difference] = []
    unsettled = 0
    for subject, parts in charged.items():
        job, amount = job_of.get(subject), sum((part.amount_usd for part in parts), FREE)
        if job is not None:
            if abs(amount - (job.billed_usd or FREE)) > CENT:
                found.append(_of_job(Disagreement.AMOUNT, job, amount))
        elif subject in known_ids:
            unsettled += 1
        elif amount and parts[-1].ended_at >= plain.since:
            found.append(
                Difference(
                    kind=Disagreement.NOT_IN_LEDGER, subject=subject, what="", vendor_usd=amount, ledger_usd=FREE
                )
            )
    missing = [
        job
        for job in jobs
        if job.billed_usd and _ended(job) >= plain.since and (job.ids is None or job.ids.request_id not in charged)
    ]
    late = [job for job in missing if _is_recent(plain, job)]
    found += [_of_job(Disagreement.NOT_BILLED, job, FREE) for job in missing if job not in late]
    named = {job.key for request_id, job in job_of.items() if request_id in charged}
    return found, named, len(late), unsettled


def _by_model_and_day(
    plain: Reconciliation, lines: Iterable[UsageLine], jobs: Iterable[ProviderJob]
) -> tuple[list[Difference], int]:
    """Models whose sums differ, day by day, and how many jobs are recent.

    A job that ended beside midnight may stand on another day at the vendor: a model whose whole sum agrees, agrees.
    """
    charged: dict[str, dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for line in lines:
        charged[line.subject][line.began_at.astimezone(UTC).date()] += line.amount_usd
    billed: dict[str, dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    late: dict[str, dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    recent = 0
    for job in jobs:
        day = _ended(job).astimezone(UTC).date()
        billed[job.request.endpoint][day] += job.billed_usd or FREE
        if _is_recent(plain, job):
            recent += 1
            late[job.request.endpoint][day] += job.billed_usd or FREE
    found: list[Difference] = []
    for model in sorted(charged.keys() | billed.keys()):
        theirs, ours, open_usd = charged[model], billed[model], late[model]
        if _agree(_total(theirs), _total(ours), _total(open_usd)):
            continue
        for day in sorted(theirs.keys() | ours.keys()):
            if _agree(theirs[day], ours[day], open_usd[day]):
                continue
            found.append(
                Difference(
                    kind=_kind(theirs[day], ours[day]),
                    subject=model,
                    what=_our_key(model),
                    day=day,
                    vendor_usd=theirs[day],
                    ledger_usd=ours[day],
                )
            )
    return found, recent


def _our_key(endpoint: str) -> str:
    """Our key of a model that a vendor calls by its endpoint; the endpoint where it is none of ours."""
    model = load_registry().by_endpoint("fal", endpoint)
    return model.key if model is not None else endpoint


def _agree(theirs: Decimal, ours: Decimal, open_usd: Decimal) -> bool:
    """Within a cent, where jobs that ended lately may be charged already or not."""
    return ours - open_usd - CENT <= theirs <= ours + CENT


def _kind(theirs: Decimal, ours: Decimal) -> Disagreement:
    if not ours:
        return Disagreement.NOT_IN_LEDGER
    return Disagreement.AMOUNT if theirs else Disagreement.NOT_BILLED


def _of_job(kind: Disagreement, job: ProviderJob, vendor_usd: Decimal) -> Difference:
    return Difference(
        kind=kind,
        subject=job.ids.request_id if job.ids is not None else "",
        what=job.api_name,
        job_key=job.key,
        season_id=job.season_id,
        vendor_usd=vendor_usd,
        ledger_usd=job.billed_usd or FREE,
    )


def _is_recent(plain: Reconciliation, job: ProviderJob) -> bool:
    return _ended(job) > plain.until - BILLING_LAG


def _ended(job: ProviderJob) -> datetime:
    assert job.finished_at is not None, f"job {job.key} is not over"
    return job.finished_at


def _billed(jobs: Iterable[ProviderJob]) -> Decimal:
    return sum((job.billed_usd or FREE for job in jobs), FREE)


def _total(sums: Mapping[date, Decimal]) -> Decimal:
    return sum(sums.values(), FREE)
