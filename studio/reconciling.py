"""The command `onmodel reconcile`: what the vendors say they charged, beside the ledger."""

from __future__ import annotations

from datetime import timedelta

from domain.errors import BadInput, NotConfigured, OnModelError, worst_exit_code
from domain.vendors import is_stand_in
from providers.wiring import Ports, open_ports
from studio.telling import complain, print_json, print_table, say
from tasks.reconciling import Difference, Disagreement, Reconciliation, reconcile

LONGEST_DAYS = 366
SUBJECT_CHARS = 44
"""With it a table is 80 columns wide at most; fal's request ids have 36."""

SHOWN = 20
"""Differences of a vendor on the screen; --json has all."""

WHAT_TO_DO = {
    Disagreement.NOT_IN_LEDGER: (
        "Charged and not in the ledger: somebody else used the key, or a job of ours was lost; "
        "look the ids up on the vendor's pages and in: onmodel jobs list SEASON"
    ),
    Disagreement.NOT_BILLED: (
        "In the ledger and not charged: the vendor may still charge it, or asked for nothing where we counted a price."
    ),
    Disagreement.AMOUNT: "Charged otherwise than counted: compare domain/prices.toml with the vendor's price list.",
}


def show_differences(vendor: str | None, *, days: int, as_json: bool) -> int:
    """Compare the last `days` days, for one vendor or all that are set up. Nothing is changed.

    Exit 0 when all agree, 6 when a person must look, 4 or 5 when a vendor could not be asked, 3 when none is set up,
    2 for days out of range.
    """
    if not 1 <= days <= LONGEST_DAYS:
        raise BadInput(f"--days is {days}: give 1 to {LONGEST_DAYS}.")
    ports = open_ports()
    until = ports.clock.now()
    found: list[Reconciliation] = []
    failures: list[tuple[str, OnModelError]] = []
    for name in [vendor] if vendor else _vendors(ports, days):
        try:
            found.append(reconcile(ports, name, until - timedelta(days=days), until))
        except NotConfigured:
            raise
        except OnModelError as failure:
            failures.append((name, failure))
    codes = [error.exit_code for _, error in failures] + [6 for one in found if one.needs_person]
    code = worst_exit_code(codes)
    if as_json:
        print_json(
            {
                "exit_code": code,
                "vendors": [_document(one) for one in found],
                "not_asked": [{"vendor": name, "error": error.message} for name, error in failures],
            }
        )
        return code
    for one in found:
        _tell(one)
    for name, error in failures:
        complain(f"{name} could not be compared: {error.message}")
    return code


def _vendors(ports: Ports, days: int) -> list[str]:
    """All that are set up; the sandbox, which always is, only where something was bought from it."""
    until = ports.clock.now()
    names = [
        name
        for name in ports.vendors_set_up()
        if not is_stand_in(name) or ports.ledger.settled_jobs(name, until - timedelta(days=days), until)
    ]
    if not names:
        raise NotConfigured(
            "There is nothing to compare: no vendor's key is set (FAL_KEY, RUNPOD_API_KEY), "
            f"and nothing was bought from the sandbox in the last {days} days."
        )
    return names


def _tell(one: Reconciliation) -> None:
    label = f"{one.vendor} (simulated)" if one.is_simulated else one.vendor
    span = f"{one.since:%Y-%m-%d} to {one.until:%Y-%m-%d %H:%M} UTC"
    if one.not_compared:
        say(f"{label}, {span}: {one.job_count} jobs for {one.ledger_usd:.2f} USD in the ledger, not compared.")
        say(one.not_compared)
        say()
        return
    grain = "job by job" if one.is_by_job else "by model and day"
    say(f"{label}, {span}, {grain}:")
    say(f"  charged {one.vendor_usd:.2f} USD, in the ledger {one.ledger_usd:.2f} USD for {one.job_count} jobs")
    if one.recent:
        say(f"  {one.recent} jobs ended within the hour: their charges may still come")
    if one.unsettled:
        say(f"  {one.unsettled} charged jobs are not settled here yet: onmodel maintain --apply goes on with them")
    if not one.differences:
        say("  They agree.")
        say()
        return
    rows = [_row(difference) for difference in one.differences[:SHOWN]]
    columns = ["what", "id or model, day", "charged", "ledger"]
    print_table(_counted(len(one.differences)), columns, rows, right=(2, 3))
    if len(one.differences) > SHOWN:
        say(f"… and {len(one.differences) - SHOWN} more: onmodel reconcile --json")
    for kind in Disagreement:
        if any(difference.kind is kind for difference in one.differences):
            say(WHAT_TO_DO[kind])
    say("Nothing was changed: a correction of the ledger is a new cost entry.")
    say()


def _counted(count: int) -> str:
    return "1 difference, USD" if count == 1 else f"{count} differences, USD"


def _row(difference: Difference) -> list[str]:
    words = {
        Disagreement.NOT_IN_LEDGER: "not in ledger",
        Disagreement.NOT_BILLED: "not charged",
        Disagreement.AMOUNT: "other amount",
    }
    where = difference.subject or f"job {difference.job_key}"
    if difference.day is not None:
        where = f"{difference.day} {difference.what}"
    where = where if len(where) <= SUBJECT_CHARS else where[: SUBJECT_CHARS - 1] + "…"
    return [words[difference.kind], where, f"{difference.vendor_usd:.4f}", f"{difference.ledger_usd:.4f}"]


def _document(one: Reconciliation) -> dict[str, object]:
    document = one.model_dump(mode="json", exclude={"differences"})
    return document | {
        "needs_person": one.needs_person,
        "differences": [
            {**difference.model_dump(mode="json"), "difference_usd": str(difference.difference_usd)}
            for difference in one.differences
        ],
    }
