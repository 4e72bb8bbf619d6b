"""The pure rules of a probe: what outputs mean, what would be bought, and which proofs overrule the registry."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO

import numpy as np
import pytest

from domain.errors import BadInput, NeedsPerson
from domain.jobs import BlobRef
from domain.model_rules import Model, ModelKind
from domain.probe_rules import SAME_BELOW, TIMES_THE_NOISE, judge_against_noise, judge_pair
from domain.profiles import Parameter, Target
from domain.proofs import Proof, Verdict, entry_sha256
from domain.registry import load_registry
from providers.vendor_ports import LoraUse
from studio.probing import ask, question_of
from tasks.matrix import disproved
from tasks.probe_orders import ProbePlan, Shot, shot_price, smallest_size
from tasks.probing import pixel_difference
from tasks.workflow_templates import parse_targets

REGISTRY = load_registry()
FILE = BlobRef(sha256="a" * 64, media_type="application/octet-stream", file_name="mei.safetensors")


def test_outputs_that_are_the_same_mean_that_the_lora_was_ignored() -> None:
    for difference in (0.0, SAME_BELOW):
        judged = judge_pair(difference)
        assert judged is not None
        assert judged[0] is Verdict.IGNORED
    assert judge_pair(SAME_BELOW + 0.0001) is None


def test_outputs_of_different_size_prove_nothing() -> None:
    judged = judge_pair(None)
    assert judged is not None
    assert judged[0] is Verdict.INCONCLUSIVE
    assert judge_against_noise(0.2, None)[0] is Verdict.INCONCLUSIVE


def test_a_difference_counts_only_well_above_the_noise() -> None:
    assert judge_against_noise(0.1, 0.0)[0] is Verdict.WORKS
    assert judge_against_noise(0.02 * TIMES_THE_NOISE, 0.02)[0] is Verdict.WORKS
    assert judge_against_noise(0.02 * TIMES_THE_NOISE - 0.001, 0.02)[0] is Verdict.INCONCLUSIVE


def test_pictures_differ_by_their_mean_distance_of_all_pixels() -> None:
    black = np.zeros((4, 6, 3), np.uint8)
    white = np.full((4, 6, 3), 255, np.uint8)
    half = black.copy()
    half[:2] = 255
    assert pixel_difference(black, black) == 0.0
    assert pixel_difference(white, black) == 1.0
    assert pixel_difference(black, half) == pytest.approx(0.5)
    assert pixel_difference(black, np.zeros((6, 4, 3), np.uint8)) is None


@pytest.mark.parametrize("model", REGISTRY.models, ids=lambda model: model.key)
def test_every_model_has_a_smallest_job_with_a_price(model: Model) -> None:
    if model.kind is ModelKind.TRAINER:
        assert shot_price(model) == 0
    else:
        assert shot_price(model) >= 0
    if model.still is not None:
        assert model.still.sizes[smallest_size(model.still)] in model.still.sizes.values()


def plan_of(key: str, *, lora: LoraUse | None = None) -> ProbePlan:
    model = REGISTRY.model(key)
    price = shot_price(model) * (3 if lora else 1)
    return ProbePlan(
        model=model,
        vendor=model.vendor,
        is_simulated=False,
        number=0,
        lora=lora,
        estimate_usd=price,
        ceiling_usd=price,
    )


def test_a_lora_is_proved_by_three_jobs_a_model_without_one_by_one_and_a_trainer_by_none() -> None:
    assert plan_of("flux_lora", lora=LoraUse(file=FILE, scale=1.0)).shots == tuple(Shot)
    assert plan_of("kling_v21").shots == (Shot.WITHOUT,)
    assert plan_of("fal_flux_lora_fast").shots == ()


def test_the_question_names_the_model_the_jobs_and_the_price() -> None:
    asked = question_of(plan_of("flux_lora", lora=LoraUse(file=FILE, scale=1.0)))
    assert "flux_lora at fal buys up to 3 jobs" in asked
    assert "about 0.11 USD" in asked, "3 stills at 0.035 each, rounded up"
    assert "takes no seed" not in asked
    assert "buys 1 job" in question_of(plan_of("kling_v21"))


class Terminal(StringIO):
    """Somebody who types one line."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", " YES \n"])
def test_a_person_at_a_terminal_may_agree(answer: str) -> None:
    voice = StringIO()
    ask("It costs 1.00 USD.", "flux_lora", Terminal(answer), voice)
    assert voice.getvalue() == "It costs 1.00 USD.\nBuy it? [y/N] "


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "maybe\n"])
def test_anything_but_a_yes_buys_nothing(answer: str) -> None:
    with pytest.raises(NeedsPerson, match="Nothing was bought"):
        ask("It costs 1.00 USD.", "flux_lora", Terminal(answer), StringIO())


def test_where_nobody_can_answer_the_command_says_how_to_agree() -> None:
    with pytest.raises(NeedsPerson, match="onmodel models probe flux_lora --yes") as asked:
        ask("It costs 1.00 USD.", "flux_lora", StringIO("y\n"), StringIO())
    assert asked.value.exit_code == 6


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (Verdict.IGNORED, "ignored it"),
        (Verdict.REFUSED, "refused"),
        (Verdict.SCHEMA_CHANGED, "no longer has a field"),
        (Verdict.WORKS, None),
        (Verdict.INCONCLUSIVE, None),
    ],
)
def test_a_bad_verdict_overrules_the_registry_and_no_other_does(verdict: Verdict, word: str | None) -> None:
    model = REGISTRY.model("flux_lora")
    proof = Proof(
        model_key=model.key,
        vendor="fal",
        verdict=verdict,
        detail="",
        cost_usd=Decimal(0),
        registry_sha256=entry_sha256(model),
        is_simulated=False,
        proved_at=datetime(2026, 11, 20, tzinfo=UTC),
    )
    said = disproved(model, proof)
    if word is None:
        assert said is None
    else:
        assert said is not None
        assert word in said
        assert "2026-11-20" in said


# --- targets as a person writes them ---


def test_a_target_is_a_title_a_class_or_a_number_and_an_input() -> None:
    found = parse_targets(["prompt=title:Positive v1.5.text", "seed=class:KSampler.seed", "seed=node:12.noise_seed"])
    assert found == {
        Parameter.PROMPT: (Target(title="Positive v1.5", input="text"),),
        Parameter.SEED: (Target(class_type="KSampler", input="seed"), Target(node_id="12", input="noise_seed")),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt", "cannot be read"),
        ("prompt=Positive.text", "cannot be read"),
        ("prompt=title:Positive", "cannot be read"),
        ("colour=title:Positive.text", "no parameter 'colour'"),
    ],
)
def test_a_target_that_cannot_be_read_is_refused_with_the_form(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_targets([text])
