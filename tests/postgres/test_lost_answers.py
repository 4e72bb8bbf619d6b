"""A job whose answer was lost: found and adopted, sent again only on proof, and otherwise decided by a person."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from domain.errors import BadInput, OnModelError, OutOfCredit, SubmissionUnknown, Unavailable
from domain.jobs import JobState, ProviderJob, VendorJobIds, VendorState
from domain.submissions import Choice, Finding, LookUp, last_submission
from tasks.insisting import store_accepted
from tasks.jobs import await_job, plan_job, submit_job
from tasks.lost_answers import LIST_LOOKS, MOST_RESENDS, resolve
from tests.acceptance.standin_vendor import PROVES_ABSENCE, StandinVendor
from tests.ports_for_tests import HandClock, PortsForTests
from tests.postgres.door_orders import Open, budget, planned, state

RESET = SubmissionUnknown("the connection was reset")
ABSENT = LookUp(finding=Finding.ABSENT, detail="no request of ours")
UNCLEAR = LookUp(finding=Finding.UNCLEAR, detail="two look alike", candidates=("a-1", "a-2"))


def _found(request_id: str) -> LookUp:
    return LookUp(finding=Finding.FOUND, detail=f"its list shows {request_id}", ids=VendorJobIds(request_id=request_id))


def _waiting(open_with: Open, vendor: StandinVendor | None = None) -> tuple[StandinVendor, PortsForTests, str]:
    """A job that was looked for in vain and waits for a person."""
    vendor = vendor or StandinVendor(submits=[RESET])
    ports = open_with(vendor)
    _, key = planned(ports)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    return vendor, ports, key


def _posts(ports: PortsForTests, key: str) -> int:
    return [event.to_state for event in ports.ledger.events(key)].count(JobState.SUBMITTING)


@pytest.mark.parametrize("before", [(), (ABSENT,), (UNCLEAR, ABSENT), (Unavailable("502"), OutOfCredit("403"))])
def test_a_lost_job_that_its_vendor_shows_is_adopted_and_goes_on(
    open_with: Open, before: Sequence[LookUp | OnModelError]
) -> None:
    found = _found(f"found-after-{len(before)}-{before!r:.30}")
    vendor = StandinVendor(submits=[RESET], look_ups=[*before, found])
    ports = open_with(vendor)
    order, key = planned(ports)
    submit_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.ids, job.error_class) == (JobState.SUBMITTED, found.ids, None)
    await_job(ports, key)
    assert (state(ports, key), budget(ports, order)) == (JobState.SUCCEEDED, (Decimal(0), Decimal(1)))
    assert (len(vendor.posts), _posts(ports, key)) == (1, 1)


def test_a_look_up_is_told_what_was_sent_and_which_ids_belong_to_other_jobs(open_with: Open) -> None:
    vendor = StandinVendor(submits=[None, RESET], look_ups=[_found("found-with-known")])
    ports = open_with(vendor)
    _, other = planned(ports)
    submit_job(ports, other)
    _, key = planned(ports)
    submit_job(ports, key)
    ((submission, known),) = vendor.looked_for
    assert submission == last_submission(ports.ledger.get(key))
    assert submission.mark.endswith(f"{key[:20]}-1")
    assert "request-1" in known


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ((ABSENT,) * 3, "no request of ours"),
        ((UNCLEAR,) * 3, r"two look alike \(it may be one of a-1, a-2\)"),
        ((Unavailable("502"),) * 3, "sandbox could not be asked: 502"),
    ],
)
def test_a_vendor_that_cannot_prove_absence_never_gets_it_again_by_itself(
    open_with: Open, looks: Sequence[LookUp | OnModelError], words: str
) -> None:
    vendor = StandinVendor(submits=[RESET], look_ups=looks)
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(SubmissionUnknown, match=words) as unknown:
        submit_job(ports, key)
    assert unknown.value.exit_code == 6
    assert (len(vendor.looked_for), len(vendor.posts)) == (LIST_LOOKS, 1)
    assert (state(ports, key), budget(ports, order)) == (JobState.SUBMISSION_UNKNOWN, (Decimal(2), Decimal(0)))


def test_a_vendor_that_proves_absence_gets_it_again_after_its_post_can_no_longer_arrive(open_with: Open) -> None:
    vendor = StandinVendor(submits=[RESET], look_ups=[ABSENT] * 3, absence=PROVES_ABSENCE)
    ports = open_with(vendor)
    order, key = planned(ports)
    before = ports.clock.now()
    submit_job(ports, key)
    job = ports.ledger.get(key)
    assert (job.state, job.post_count, len(vendor.posts)) == (JobState.SUBMITTED, 2, 2)
    assert budget(ports, order) == (Decimal(2), Decimal(0))
    assert isinstance(ports.clock, HandClock)
    assert [pause for pause in ports.clock.slept if pause > 1] == [60.0, 5.0, 5.0]
    assert (ports.clock.now() - before).total_seconds() >= 70


def test_a_sender_whose_clock_was_behind_does_not_make_its_post_look_old(open_with: Open) -> None:
    vendor = StandinVendor(look_ups=[ABSENT] * 3, absence=PROVES_ABSENCE)
    sender, ports = open_with(vendor), open_with(vendor)
    _, key = planned(sender)
    assert sender.ledger.claim(key, sender.clock.now(), {})  # and then its connection is cut
    ports.clock.sleep(3600)
    submit_job(ports, key)
    assert isinstance(ports.clock, HandClock)
    (waited,) = [pause for pause in ports.clock.slept if 5 < pause < 3600]
    assert PROVES_ABSENCE.after_seconds - 20 < waited <= PROVES_ABSENCE.after_seconds


def test_what_is_lost_each_time_is_not_sent_for_ever_however_absent_it_is(open_with: Open) -> None:
    vendor = StandinVendor(submits=[RESET] * 99, look_ups=[ABSENT] * 99, absence=PROVES_ABSENCE)
    _, ports, key = _waiting(open_with, vendor)
    assert len(vendor.posts) == 1 + MOST_RESENDS
    with pytest.raises(SubmissionUnknown, match="was lost each time, so something is wrong"):
        submit_job(ports, key)
    assert len(vendor.posts) == 1 + MOST_RESENDS


@pytest.mark.parametrize("hole", [UNCLEAR, Unavailable("502")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_look_that_did_not_show_its_absence_is_no_proof(
    open_with: Open, hole: LookUp | OnModelError, place: int
) -> None:
    looks: list[LookUp | OnModelError] = [ABSENT] * 3
    looks[place] = hole
    vendor = StandinVendor(submits=[RESET], look_ups=looks, absence=PROVES_ABSENCE)
    _waiting(open_with, vendor)
    assert len(vendor.posts) == 1


def test_a_request_that_belongs_to_another_job_is_never_adopted(open_with: Open) -> None:
    vendor = StandinVendor(submits=[None, RESET], look_ups=[_found("request-1")])
    ports = open_with(vendor)
    _, other = planned(ports)
    submit_job(ports, other)
    _, key = planned(ports)
    with pytest.raises(SubmissionUnknown, match="request-1, belongs to another job of ours"):
        submit_job(ports, key)
    assert state(ports, key) is JobState.SUBMISSION_UNKNOWN
    with pytest.raises(BadInput, match="belongs to our job"):
        resolve(ports, key, Choice.ADOPT, "request-1")
    assert len(vendor.posts) == 2


# --- what a person decides ---


def test_a_person_adopts_what_the_vendor_knows_and_the_job_goes_on(open_with: Open) -> None:
    vendor, ports, key = _waiting(open_with)
    job = resolve(ports, key, Choice.ADOPT, "by-hand-1")
    assert (job.state, job.ids and job.ids.request_id) == (JobState.SUBMITTED, "by-hand-1")
    await_job(ports, key)
    assert (state(ports, key), len(vendor.posts)) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize("said", [None, "", "x" * 201, "a\nb"])
def test_an_id_that_is_none_is_not_adopted(open_with: Open, said: str | None) -> None:
    vendor, ports, key = _waiting(open_with)
    calls = vendor.calls
    with pytest.raises(BadInput, match="--adopt ID"):
        resolve(ports, key, Choice.ADOPT, said)
    assert (state(ports, key), vendor.calls) == (JobState.SUBMISSION_UNKNOWN, calls)


def test_an_id_that_the_vendor_does_not_know_is_not_adopted(open_with: Open) -> None:
    _, ports, key = _waiting(open_with, StandinVendor(submits=[RESET], states=(VendorState.GONE,)))
    with pytest.raises(BadInput, match="knows no request nonsense"):
        resolve(ports, key, Choice.ADOPT, "nonsense")
    assert state(ports, key) is JobState.SUBMISSION_UNKNOWN


def test_a_person_has_it_sent_again_and_its_reservation_stands(open_with: Open) -> None:
    vendor, ports, key = _waiting(open_with)
    assert resolve(ports, key, Choice.RESUBMIT).state is JobState.PLANNED
    submit_job(ports, key)
    await_job(ports, key)
    assert (state(ports, key), len(vendor.posts), ports.ledger.get(key).post_count) == (JobState.SUCCEEDED, 2, 2)


def test_a_person_gives_it_up_its_estimate_counts_and_the_work_is_bought_anew(open_with: Open) -> None:
    vendor = StandinVendor(submits=[RESET])
    ports = open_with(vendor)
    order, key = planned(ports)
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    job = resolve(ports, key, Choice.ABANDON)
    assert (job.state, job.billed_usd, job.error_class) == (JobState.CANCELLED, Decimal(1), "Abandoned")
    assert budget(ports, order) == (Decimal(0), Decimal(1))
    (cost,) = ports.ledger.costs(order.season_id)
    assert "may have been paid" in cost.purpose
    anew = plan_job(ports, order)
    assert anew == order.job_key(2)
    assert budget(ports, order) == (Decimal(2), Decimal(1))


@pytest.mark.parametrize("choice", list(Choice))
def test_only_a_lost_job_can_be_resolved_and_a_running_one_only_given_up(open_with: Open, choice: Choice) -> None:
    ports = open_with(StandinVendor())
    _, key = planned(ports)
    with pytest.raises(BadInput, match=r"is planned: only a job whose answer was lost.*goes on by itself"):
        resolve(ports, key, choice, "x")
    submit_job(ports, key)
    if choice is Choice.ABANDON:
        assert resolve(ports, key, choice).state is JobState.CANCELLED
    else:
        with pytest.raises(BadInput, match="is submitted: only"):
            resolve(ports, key, choice, "x")
        await_job(ports, key)
    with pytest.raises(BadInput, match=r"is (cancelled|succeeded): only a job whose answer was lost can be resolved\."):
        resolve(ports, key, choice, "x")


# --- what this machine still knows ---


def _with_a_note(open_with: Open) -> tuple[StandinVendor, PortsForTests, ProviderJob]:
    """A lost job whose answer an earlier process of this machine could only write on paper."""
    vendor, ports, key = _waiting(open_with)
    cut = open_with(vendor)
    cut.database.close()
    with pytest.raises(Unavailable):
        store_accepted(cut, key, "sandbox", VendorJobIds(request_id=f"paper-{key[:8]}"))
    return vendor, ports, ports.ledger.get(key)


def test_an_answer_that_lies_on_paper_is_taken_up_before_anybody_is_asked(open_with: Open) -> None:
    vendor, ports, job = _with_a_note(open_with)
    looked = len(vendor.looked_for)
    submit_job(ports, job.key)
    found = ports.ledger.get(job.key).ids
    assert (found and found.request_id, len(vendor.looked_for)) == (f"paper-{job.key[:8]}", looked)


@pytest.mark.parametrize("choice", list(Choice))
def test_an_answer_that_lies_on_paper_counts_more_than_what_a_person_believes(open_with: Open, choice: Choice) -> None:
    vendor, ports, job = _with_a_note(open_with)
    resolved = resolve(ports, job.key, choice, "another")
    assert (resolved.state, resolved.ids and resolved.ids.request_id) == (
        JobState.SUBMITTED,
        f"paper-{job.key[:8]}",
    )
    await_job(ports, job.key)
    assert (len(vendor.posts), state(ports, job.key)) == (1, JobState.SUCCEEDED)


def test_a_note_that_was_cut_short_is_no_answer(open_with: Open) -> None:
    _, ports, key = _waiting(open_with)
    note = ports.settings.home / "accepted" / f"{key}.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text('{"request_id": "pap')
    with pytest.raises(SubmissionUnknown):
        submit_job(ports, key)
    note.unlink()
