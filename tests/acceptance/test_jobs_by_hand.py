"""`onmodel jobs`: listed, shown, resolved and cancelled by hand, on real tables and with a vendor told what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from domain.errors import SubmissionUnknown
from domain.jobs import JobState, VendorState
from providers.wiring import open_ports
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.commands_in_process import commands_on, onmodel
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season
from tests.postgres.door_orders import order_in

slugs = (f"by-hand-{n}" for n in itertools.count(1))


@pytest.fixture(scope="module")
def ports(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    with new_database(server_url) as url:
        opened = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield opened
        opened.close()


Bought = tuple[str, str]
"""A season's slug and its job's key."""


@pytest.fixture
def bought(ports: PortsForTests) -> Iterator[Callable[[StandinVendor], Bought]]:
    """A season with one job that was sent to a vendor; commands then meet this vendor."""
    with commands_on(ports):

        def buy(vendor: StandinVendor) -> Bought:
            # The process that runs the commands; its vendor is the test's.
            open_ports()._vendors["sandbox"] = vendor
            slug = next(slugs)
            season_id = store_season(ports, slug, time_zone="Europe/Lisbon")
            key = plan_job(open_ports(), order_in(ports, season_id, usd="3.00", slot_number=4))
            try:
                submit_job(open_ports(), key)
            except SubmissionUnknown:
                assert ports.ledger.get(key).state is JobState.SUBMISSION_UNKNOWN
            return slug, key

        yield buy
        with ports.database.transaction() as db:
            db.execute("DELETE FROM vendor_circuits")


def lost() -> StandinVendor:
    return StandinVendor(submits=[SubmissionUnknown("the connection was reset")])


def test_open_jobs_are_listed_and_with_all_also_those_that_are_over(bought: Callable[..., Bought]) -> None:
    slug, key = bought(StandinVendor())
    listed = onmodel("jobs", "list", slug)
    assert listed.exit_code == 0
    assert f"{key[:12]}" in listed.out
    assert "≤ 3.00" in listed.out
    assert max(len(line) for line in listed.out.splitlines()) <= 80
    await_job(open_ports(), key)
    assert onmodel("jobs", "list", slug).out == f"{slug} has no jobs under way; all of them: --all\n"
    (job,) = onmodel("jobs", "list", slug, "--all", "--json").document["jobs"]
    assert (job["key"], job["state"], job["request_id"]) == (key, "succeeded", "request-1")
    assert "1.50" in onmodel("jobs", "list", slug, "--all").out


def test_a_job_is_shown_with_everything_that_happened_to_it_and_no_address(bought: Callable[..., Bought]) -> None:
    slug, key = bought(StandinVendor(billed_usd=Decimal("1.25")))
    await_job(open_ports(), key)
    shown = onmodel("jobs", "show", key[:4])
    assert shown.exit_code == 0
    for words in (
        key,
        f"slot 4 of {slug}",
        "request-1",
        "1.2500 charged",
        "sha256 ",
        "planned",
        "submitting",
        "POST 1",
    ):
        assert words in shown.out
    assert "token=1" not in shown.out
    document = onmodel("jobs", "show", key, "--json")
    assert [event["to_state"] for event in document.document["events"]] == [
        "planned",
        "submitting",
        "submitted",
        "running",
        "succeeded",
    ]
    assert "token=1" not in document.out


@pytest.mark.parametrize("beginning", ["abc", "zzzz", "%%%%", "''''"])
def test_what_begins_no_jobs_key_is_refused(ports: PortsForTests, beginning: str) -> None:
    with commands_on(ports):
        for command in (("show", beginning), ("resolve", beginning, "--abandon")):
            assert onmodel("jobs", *command).exit_code == 2


def test_a_lost_job_shows_its_choices_and_they_are_on_the_list_of_things_to_do(bought: Callable[..., Bought]) -> None:
    slug, key = bought(lost())
    shown = onmodel("jobs", "show", key).out
    for choice in ("--adopt ID", "--resubmit", "--abandon"):
        assert f"onmodel jobs resolve {key[:12]} {choice}" in shown
    status = onmodel("status", slug)
    assert f"onmodel jobs resolve {key[:12]} --adopt ID, or --resubmit, or --abandon" in status.out


@pytest.mark.parametrize("choices", [[], ["--resubmit", "--abandon"], ["--adopt", "x", "--resubmit"]])
def test_exactly_one_choice_is_taken(bought: Callable[..., Bought], choices: list[str]) -> None:
    _, key = bought(lost())
    refused = onmodel("jobs", "resolve", key, *choices)
    assert (refused.exit_code, "Choose one of" in refused.err) == (2, True)
    assert open_ports().ledger.get(key).state is JobState.SUBMISSION_UNKNOWN


def test_a_lost_job_is_adopted_and_goes_on_without_another_post(bought: Callable[..., Bought]) -> None:
    vendor = lost()
    _, key = bought(vendor)
    told = onmodel("jobs", "resolve", key[:8], "--adopt", "request-77")
    assert told.exit_code == 0
    assert "is adopted as request request-77" in told.out
    submit_job(open_ports(), key)
    await_job(open_ports(), key)
    assert (open_ports().ledger.get(key).state, len(vendor.posts)) == (JobState.SUCCEEDED, 1)


def test_a_lost_job_is_sent_again_on_a_persons_word_by_the_next_run_and_not_by_the_command(
    bought: Callable[..., Bought],
) -> None:
    vendor = lost()
    _, key = bought(vendor)
    assert "is planned again" in onmodel("jobs", "resolve", key, "--resubmit").out
    assert len(vendor.posts) == 1
    submit_job(open_ports(), key)
    assert (open_ports().ledger.get(key).state, len(vendor.posts)) == (JobState.SUBMITTED, 2)


def test_a_lost_job_is_given_up_at_its_estimate(bought: Callable[..., Bought]) -> None:
    _, key = bought(lost())
    assert "is given up; 1.50 USD count as spent" in onmodel("jobs", "resolve", key, "--abandon").out
    job = open_ports().ledger.get(key)
    assert (job.state, job.billed_usd) == (JobState.CANCELLED, Decimal("1.50"))
    assert onmodel("jobs", "resolve", key, "--abandon").exit_code == 2


def test_nothing_is_decided_while_another_process_is_at_work_on_the_job(
    ports: PortsForTests, bought: Callable[..., Bought]
) -> None:
    _, key = bought(lost())
    with ports.ledger.submitter(key) as hold:
        assert hold.is_ours
        busy = onmodel("jobs", "resolve", key, "--resubmit")
    assert (busy.exit_code, "Another process is at work" in busy.err) == (5, True)
    assert open_ports().ledger.get(key).state is JobState.SUBMISSION_UNKNOWN


def test_open_jobs_are_cancelled_and_one_that_is_lost_is_said_to_wait(bought: Callable[..., Bought]) -> None:
    vendor = StandinVendor(states=(VendorState.QUEUED, VendorState.CANCELLED))
    slug, key = bought(vendor)
    waiting, lost_key = bought(lost())
    open_ports()._vendors["sandbox"] = vendor
    assert onmodel("jobs", "cancel", waiting, key).exit_code == 2
    ended = onmodel("jobs", "cancel", slug)
    assert (ended.exit_code, "cancelled" in ended.out) == (0, True)
    assert vendor.cancelled == ["request-1"]
    assert onmodel("jobs", "cancel", slug).out == f"{slug} has no jobs under way.\n"
    left = onmodel("jobs", "cancel", waiting, lost_key[:8])
    assert (left.exit_code, "--resubmit" in left.out) == (6, True)
