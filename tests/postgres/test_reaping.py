"""The reaper on real tables and a RunPod that answers on loopback: what is deleted, what is kept, what is charged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.costs import FREE, job_cost
from domain.jobs import BlobRef, JobOrder, JobState, blob_argument
from domain.pods import GRACE, pod_name
from domain.submissions import Submission
from providers.blobs.handover import LocalHandover
from providers.runpod.vendor import RunPodVendor
from providers.vendor_ports import JobVendor, PodHost
from tasks.jobs import submit_job
from tasks.reaping import ReapReport, reap_pods
from tests.contract.runpod_orders import TRAIN, vendor_over
from tests.contract.runpod_standin import Answer, Fault, RunPodStandIn, runpod_stand_in
from tests.ports_for_tests import HandClock, PortsForTests
from tests.postgres.door_orders import budget, planned, state

DATA = b"a training set"
SET = BlobRef(sha256=hashlib.sha256(DATA).hexdigest(), media_type="application/zip", file_name="set.zip")
POD = TRAIN.model_copy(
    update={"arguments": TRAIN.arguments | {"dataset": blob_argument(SET), "hard_stop_seconds": 7200}}
)
AN_HOUR = timedelta(hours=1)


class PodPorts(PortsForTests):
    """Ports whose one vendor, and one host of pods, is RunPod."""

    hosts: tuple[PodHost, ...]
    runpod: RunPodVendor

    def job_vendor(self, name: str) -> JobVendor:  # type: ignore[override]
        assert name == "runpod"
        return self.runpod

    def pod_hosts(self) -> tuple[PodHost, ...]:
        return self.hosts


@pytest.fixture
def runpod() -> Iterator[RunPodStandIn]:
    with runpod_stand_in() as server:
        yield server


@pytest.fixture
def ports(shared: PortsForTests, runpod: RunPodStandIn, tmp_path: Path) -> Iterator[PodPorts]:
    """The shared tables, RunPod on loopback, and one clock for both."""
    ports = PodPorts(shared.settings, {}, HandClock())
    ports.blobs.put_bytes(DATA, SET.media_type)
    runpod.now = ports.clock.now
    transport = httpx.HTTPTransport(verify=False)
    with httpx.Client(transport=transport, timeout=0.5, trust_env=False) as http:
        ports.runpod = vendor_over(http, LocalHandover(tmp_path, here=True), runpod.url)
        ports.hosts = (ports.runpod,)
        yield ports
    ports.close()
    with shared.database.transaction() as db:
        db.execute("DELETE FROM vendor_circuits")


def submitted(ports: PodPorts, **fields: Any) -> tuple[JobOrder, str]:
    """A job whose pod runs."""
    order, key = planned(ports, request=POD, **fields)
    submit_job(ports, key)
    return order, key


def pass_time(ports: PodPorts, span: timedelta) -> None:
    ports.clock.sleep(span.total_seconds())


def reap(ports: PodPorts, *, is_dry_run: bool = False) -> ReapReport:
    return reap_pods(ports, is_dry_run=is_dry_run)


def orphan(ports: PodPorts, runpod: RunPodStandIn) -> str:
    """A pod of ours that no ledger knows, old enough to be judged; its id."""
    mark = ports.ledger.installation()
    lost = Submission(installation=mark, job_key="0" * 40, number=1, sent_at=ports.clock.now() - GRACE, url_of={})
    return runpod.add_pod(pod_name(lost), created_at=lost.sent_at).pod_id


# --- the door with a vendor whose pods have names ---


def test_a_pod_whose_order_was_answered_with_a_500_is_adopted_by_its_name(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    runpod.on("create", Fault.ERROR_AFTER)
    _, key = submitted(ports)
    job = ports.ledger.get(key)
    assert job.state is JobState.SUBMITTED
    assert job.ids is not None
    assert list(runpod.pods) == [job.ids.request_id]
    assert len(runpod.created) == 1


def test_an_order_that_never_arrived_is_sent_again_after_four_lists_without_it(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    runpod.on("create", Fault.DROP_BEFORE)
    _, key = submitted(ports)
    assert state(ports, key) is JobState.SUBMITTED
    assert runpod.routes() == ["catalogue", "create", *["list"] * 4, "catalogue", "create"]
    (name,) = runpod.created
    assert name.endswith("-2")


def test_a_pod_that_lists_show_late_is_not_bought_a_second_time(ports: PodPorts, runpod: RunPodStandIn) -> None:
    runpod.hide_new_pods_for = 3
    runpod.on("create", Fault.DROP_AFTER)
    _, key = submitted(ports)
    assert state(ports, key) is JobState.SUBMITTED
    assert len(runpod.created) == 1


# --- what goes and what stays ---


def test_a_pod_of_a_living_job_stays_and_so_does_what_is_not_ours(ports: PodPorts, runpod: RunPodStandIn) -> None:
    _, key = submitted(ports)
    runpod.add_pod("somebody's notebook")
    pass_time(ports, AN_HOUR)
    report = reap(ports)
    (host,) = report.hosts
    assert report.is_whole
    assert (host.vendor, host.stranger_count, host.condemned) == ("runpod", 1, ())
    assert [verdict.job_key for verdict in host.kept] == [key]
    assert len(runpod.pods) == 2


def test_a_pod_whose_job_is_over_is_deleted_and_seen_to_be_gone(ports: PodPorts, runpod: RunPodStandIn) -> None:
    _, key = submitted(ports)
    job = ports.ledger.get(key)
    ports.ledger.end(key, JobState.CANCELLED, "Abandoned", "given up", job_cost(job, FREE, "given up"))
    pass_time(ports, AN_HOUR)
    (host,) = reap(ports).hosts
    assert [verdict.job_key for verdict in host.deleted] == [key]
    assert host.ended_jobs == ()
    assert runpod.pods == {}
    assert runpod.routes()[-3:] == ["list", "delete", "list"]


def test_a_dry_run_says_what_it_would_delete_and_deletes_nothing(ports: PodPorts, runpod: RunPodStandIn) -> None:
    _, key = submitted(ports)
    pod_id = orphan(ports, runpod)
    pass_time(ports, 3 * AN_HOUR)
    report = reap(ports, is_dry_run=True)
    (host,) = report.hosts
    assert report.is_dry_run
    assert report.is_whole
    assert {verdict.pod_id for verdict in host.condemned} == set(runpod.pods) > {pod_id}
    assert (host.deleted, host.ended_jobs) == ((), ())
    assert runpod.deleted == []
    assert state(ports, key) is JobState.SUBMITTED


def test_a_list_that_fails_is_an_error_and_never_no_pods(ports: PodPorts, runpod: RunPodStandIn) -> None:
    orphan(ports, runpod)
    for fault in (Fault.BAD_GATEWAY, Fault.UNREADABLE, Fault.DROP_BEFORE, Fault.RATE_LIMITED):
        runpod.on("list", fault)
        report = reap(ports)
        (host,) = report.hosts
        assert not report.is_whole
        assert "could not be listed" in host.problems[0]
    assert runpod.deleted == []


def test_one_host_that_cannot_be_asked_does_not_keep_the_others_from_being_reaped(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    orphan(ports, runpod)
    ports.hosts = (ports.runpod, ports.runpod)
    runpod.on("list", Fault.ERROR_BEFORE)
    first, second = reap(ports).hosts
    assert first.problems
    assert len(second.deleted) == 1
    assert runpod.pods == {}


# --- deletes that go wrong ---


def test_a_delete_that_fails_is_counted_apart_and_made_up_for_by_the_next_run(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    orphan(ports, runpod)
    gone = orphan(ports, runpod)
    runpod.on("delete", Fault.ERROR_BEFORE)
    report = reap(ports)
    (host,) = report.hosts
    assert not report.is_whole
    assert [verdict.pod_id for verdict in host.deleted] == [gone]
    assert "could not be deleted" in host.failed[0].problem
    assert reap(ports).is_whole
    assert runpod.pods == {}


def test_a_pod_that_vanished_before_its_delete_is_done(ports: PodPorts, runpod: RunPodStandIn) -> None:
    pod_id = orphan(ports, runpod)
    runpod.on_request = lambda route, phase: runpod.pods.clear() if (route, phase) == ("delete", "before") else None
    report = reap(ports)
    assert report.is_whole
    assert [verdict.pod_id for verdict in report.hosts[0].deleted] == [pod_id]


def test_a_pod_that_is_still_listed_after_its_delete_counts_as_not_deleted(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    _, key = submitted(ports)
    pass_time(ports, 3 * AN_HOUR)
    runpod.always("delete", Answer(204))
    report = reap(ports)
    (host,) = report.hosts
    assert not report.is_whole
    assert "lists it all the same" in host.failed[0].problem
    assert (host.deleted, host.ended_jobs) == ((), ())
    assert runpod.routes()[-5:] == ["list", "delete", "list", "list", "list"]
    assert state(ports, key) is JobState.SUBMITTED


def test_a_pod_that_leaves_the_list_a_moment_late_is_deleted(ports: PodPorts, runpod: RunPodStandIn) -> None:
    pod_id = orphan(ports, runpod)
    runpod.on("delete", Answer(204))
    lists = iter(range(9))
    runpod.on_request = lambda route, phase: (
        runpod.pods.clear() if (route, phase) == ("list", "before") and next(lists) == 2 else None
    )
    assert [verdict.pod_id for verdict in reap(ports).hosts[0].deleted] == [pod_id]
    assert isinstance(ports.clock, HandClock)
    assert ports.clock.slept == [5.0]


def test_a_delete_that_cannot_be_confirmed_is_not_called_done(ports: PodPorts, runpod: RunPodStandIn) -> None:
    orphan(ports, runpod)
    runpod.on("list", None, Fault.BAD_GATEWAY)
    report = reap(ports)
    assert not report.is_whole
    assert "not confirmed" in report.hosts[0].failed[0].problem


# --- jobs whose time was up ---


def test_a_job_past_its_hard_stop_fails_with_its_pod_and_is_charged_by_the_hour(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    order, key = submitted(ports, usd="3.00")
    (pod,) = runpod.pods.values()
    pod.created_at = ports.clock.now()
    pass_time(ports, 2 * AN_HOUR)
    assert reap(ports).hosts[0].ended_jobs == ()
    pass_time(ports, timedelta(seconds=10))
    (host,) = reap(ports).hosts
    assert host.ended_jobs == (key,)
    assert runpod.pods == {}
    job = ports.ledger.get(key)
    charged = Decimal("1.3820")  # 0.69 USD/h × 7210 s, rounded up to 0.0001
    assert (job.state, job.error_class, job.billed_usd) == (JobState.FAILED, "JobFailed", charged)
    assert "hard stop" in (job.error_message or "")
    assert budget(ports, order) == (Decimal(0), charged)
    assert reap(ports).hosts[0].ended_jobs == ()


def test_a_pod_that_no_longer_tells_its_price_is_charged_at_the_ceiling(ports: PodPorts, runpod: RunPodStandIn) -> None:
    order, key = submitted(ports, usd="3.00")
    next(iter(runpod.pods.values())).life = ["EXITED"]
    pass_time(ports, 3 * AN_HOUR)
    assert reap(ports).hosts[0].ended_jobs == (key,)
    assert ports.ledger.get(key).billed_usd == Decimal("3.00")
    assert budget(ports, order) == (Decimal(0), Decimal("3.00"))


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_job_whose_answer_was_lost_is_known_by_its_pod_when_its_time_is_up(
    ports: PodPorts, runpod: RunPodStandIn, is_lost: bool
) -> None:
    """The process that sent it died before it stored the answer, and nobody came back."""
    _, key = planned(ports, request=POD)
    submission = ports.ledger.claim(key, ports.clock.now(), {SET.sha256: "https://store.example/set.zip"})
    assert submission is not None
    ids = ports.runpod.submit(POD, submission)
    if is_lost:
        ports.ledger.lose(key, "it died")
    before = state(ports, key)
    pass_time(ports, AN_HOUR)
    assert reap(ports).hosts[0].kept[0].job_key == key
    assert state(ports, key) is before
    pass_time(ports, 2 * AN_HOUR)
    assert reap(ports).hosts[0].ended_jobs == (key,)
    job = ports.ledger.get(key)
    assert job.ids is not None
    assert (job.state, job.ids.request_id) == (JobState.FAILED, ids.request_id)
    assert runpod.pods == {}


def test_the_pod_of_an_order_that_counted_as_absent_is_deleted_when_it_turns_up(
    ports: PodPorts, runpod: RunPodStandIn
) -> None:
    """Worse than any list seen: the pod shows only after four looks, and its job has been sent again."""
    runpod.hide_new_pods_for = 4
    runpod.on("create", Fault.DROP_AFTER)
    _, key = submitted(ports)
    job = ports.ledger.get(key)
    assert job.ids is not None
    assert len(runpod.pods) == 2
    pass_time(ports, GRACE)
    for pod in runpod.pods.values():
        pod.hidden_listings = 0
    (host,) = reap(ports).hosts
    assert not host.failed
    assert list(runpod.pods) == [job.ids.request_id]
    assert state(ports, key) is JobState.SUBMITTED
