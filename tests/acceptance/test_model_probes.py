"""`onmodel models probe` on the sandbox: what a LoRA really changes is bought, compared and kept as a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import Rejected, SubmissionUnknown
from domain.jobs import JobState, Stage
from domain.proofs import PROBE_SEASONS, Verdict
from providers.wiring import open_ports
from tasks.matrix import takes_lora
from tests.acceptance.season_art import train_by_hand
from tests.acceptance.season_homes import STILLS, Studio
from tests.acceptance.standin_vendor import StandinVendor
from tests.commands_in_process import Told, onmodel

MEI = "MEI_TRIGGER"


@pytest.fixture(autouse=True)
def _log_is_no_flows(prefect_url: str) -> Iterator[None]:
    """What the command itself sets, where no test before it has made Prefect read its settings."""
    from prefect.settings import PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):
        yield


@pytest.fixture(autouse=True)
def _verdicts_end_with_the_test(studio: Studio) -> Iterator[None]:
    """The home is shared: another test's season must not follow what was rehearsed here. How many probes there were
    still counts, because each buys jobs of its own."""
    yield
    with studio.ports.database.transaction() as db:
        db.execute("UPDATE model_proofs SET registry_sha256 = 'of another entry'")


@pytest.fixture(scope="module")
def lora(art: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of FLUX.1 that somebody already has."""
    return train_by_hand(art, "mei", tmp_path_factory.mktemp("lora") / "mei.safetensors", steps=200)


def probe(key: str, lora: Path | None = None, *more: str, vendor: str = "sandbox") -> Told:
    given = ("--lora", str(lora), "--trigger", MEI) if lora is not None else ()
    return onmodel("models", "probe", key, "--vendor", vendor, *given, *more, "--json")


def test_a_lora_that_changes_the_picture_works_and_each_probe_buys_its_own_three(studio: Studio, lora: Path) -> None:
    before = studio.posts(STILLS)
    told = probe("flux_lora", lora)
    assert told.exit_code == 0, told.err
    proof = told.document["proof"]
    assert proof["verdict"] == "works"
    assert proof["difference"] > 0.04, "ten times what counts as the same"
    assert (proof["is_simulated"], len(proof["job_keys"])) == (True, 3)
    assert studio.posts(STILLS) == before + 3
    jobs = [studio.ports.ledger.get(key) for key in proof["job_keys"]]
    assert {job.stage for job in jobs} == {Stage.MODEL_PROBE}
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert probe("flux_lora", lora).document["proof"]["verdict"] == "works"
    assert studio.posts(STILLS) == before + 6
    shown = onmodel("models", "flux_lora", "--vendor", "sandbox").out
    assert "at sandbox: works" in shown


def test_a_lora_that_is_accepted_and_ignored_counts_as_not_taken(studio: Studio, lora: Path) -> None:
    model = studio.ports.registry.model("flux_lora")
    before = studio.posts(STILLS)
    with studio.faults("job:ignore=loras"):
        proof = probe("flux_lora", lora).document["proof"]
    assert (proof["verdict"], proof["difference"]) == ("ignored", 0.0)
    assert studio.posts(STILLS) == before + 2, "the noise need not be bought where nothing changed"
    assert not takes_lora(studio.ports, model, "sandbox")
    assert takes_lora(studio.ports, model, "fal")
    assert probe("flux_lora", lora).document["proof"]["verdict"] == "works"
    assert takes_lora(studio.ports, model, "sandbox")


@pytest.mark.parametrize(
    ("key", "vendor"), [("flux_lora_replicate", "sandbox-replicate"), ("comfyui_flux_1", "sandbox-comfyui")]
)
def test_a_lora_that_another_vendor_ignores_is_found_out_too(studio: Studio, lora: Path, key: str, vendor: str) -> None:
    with studio.faults("job:ignore=loras"):
        assert probe(key, lora, vendor=vendor).document["proof"]["verdict"] == "ignored"
    assert not takes_lora(studio.ports, studio.ports.registry.model(key), vendor)


def test_a_refusal_is_a_verdict_and_a_refused_prompt_is_none(studio: Studio, lora: Path) -> None:
    with studio.faults("submit:refuse=422#1"):
        proof = probe("flux_lora", lora).document["proof"]
    assert (proof["verdict"], float(proof["cost_usd"])) == ("refused", 0.0)
    with studio.faults("job:fail=422/content_policy_violation#1"):
        assert probe("flux_lora", lora).document["proof"]["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("plan", "verdict", "jobs"),
    [
        ("job:fail=500#2", "works", 4),
        ("job:fail=500#2-3", "refused", 3),
        ("job:fail=500#1-2", "inconclusive", 2),
    ],
    ids=["one bad job", "twice with the LoRA", "twice without it"],
)
def test_a_job_that_fails_is_bought_once_more_and_only_with_the_lora_does_failing_count(
    studio: Studio, lora: Path, plan: str, verdict: str, jobs: int
) -> None:
    with studio.faults(plan):
        proof = probe("flux_lora", lora).document["proof"]
    assert (proof["verdict"], len(proof["job_keys"])) == (verdict, jobs)


def test_a_clip_is_compared_frame_by_frame_and_a_model_without_a_lora_is_asked_once(studio: Studio) -> None:
    wan = train_by_hand(studio.art, "tova", studio.folder / "tova.safetensors", base="wan-22-t2v-a14b", steps=100)
    told = onmodel(
        "models", "probe", "wan_22_t2v_lora", "--vendor", "sandbox", "--lora", str(wan), "--trigger", "TOVA_TRIGGER",
        "--json",
    )  # fmt: skip
    assert told.document["proof"]["verdict"] == "works", told
    proof = probe("kling_v21").document["proof"]
    assert (proof["verdict"], len(proof["job_keys"])) == ("works", 1)


def test_of_a_trainer_only_the_live_schema_is_read(studio: Studio) -> None:
    before = studio.posts()
    proof = probe("fal_flux_lora_fast").document["proof"]
    assert (proof["verdict"], proof["job_keys"]) == ("works", [])
    assert studio.posts() == before


def test_a_lost_answer_is_no_verdict_and_the_same_command_goes_on_without_paying_twice(
    studio: Studio, lora: Path
) -> None:
    before = studio.posts(STILLS)
    count = studio.ports.proofs.count("flux_lora", "sandbox")
    with studio.faults("submit:drop_after_accept#1,list:hide"):
        lost = probe("flux_lora", lora)
    assert lost.exit_code == SubmissionUnknown.exit_code
    assert studio.ports.proofs.count("flux_lora", "sandbox") == count
    assert probe("flux_lora", lora).document["proof"]["verdict"] == "works"
    assert studio.posts(STILLS) == before + 3


def test_a_real_vendor_is_not_paid_before_somebody_agrees(studio: Studio, lora: Path) -> None:
    vendor = StandinVendor(name="fal", submits=[Rejected("no such thing")])
    open_ports()._vendors["fal"] = vendor
    asked = probe("flux_lora", lora, vendor="fal")
    assert (asked.exit_code, vendor.calls) == (6, 0)
    assert "up to 3 jobs for about 0.11 USD" in asked.err
    assert "onmodel models probe flux_lora --yes" in asked.err
    agreed = probe("flux_lora", lora, "--yes", vendor="fal")
    assert agreed.document["proof"]["verdict"] == Verdict.REFUSED
    assert len(vendor.posts) == 1


def test_what_only_a_person_can_give_is_asked_for_before_anything_is_bought(studio: Studio, lora: Path) -> None:
    before = studio.posts()
    assert "no LoRA" in probe("kling_v21", lora).err
    wrong = probe("wan_22_t2v_lora", lora)
    assert (wrong.exit_code, "cannot prove" in wrong.err) == (2, True)
    assert probe("flux_lora", lora, vendor="nobody").exit_code == 2
    assert studio.posts() == before


def test_the_season_of_the_probes_is_on_no_list(studio: Studio, lora: Path) -> None:
    assert probe("flux_lora", lora).exit_code == 0
    told = onmodel("status", "no-such-season")
    assert told.exit_code == 2
    assert not any(slug in told.err for slug in PROBE_SEASONS.values())
