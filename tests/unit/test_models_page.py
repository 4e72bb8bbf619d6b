"""The matrix for people: docs/models.md is what the registry writes, and the table fits a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.model_rules import DurationRule, Model
from domain.money import Price, PriceUnit, load_prices
from domain.proofs import OLD_AFTER, Proof, Verdict, entry_sha256
from domain.registry import Registry, load_registry
from studio.models_page import PAGE, write_page
from studio.models_table import WIDTHS, broken
from studio.models_words import duration_words, limit_words, lora_words, price_words, proof_words

REGISTRY = load_registry()
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def proof_of(model: Model, verdict: Verdict = Verdict.WORKS, *, age: timedelta = timedelta(days=1)) -> Proof:
    return Proof(
        model_key=model.key,
        vendor=model.vendor,
        verdict=verdict,
        detail="as told",
        registry_sha256=entry_sha256(model),
        is_simulated=False,
        proved_at=NOW - age,
    )


def test_the_page_is_what_the_registry_writes() -> None:
    written = write_page(REGISTRY, load_prices())
    assert PAGE.read_text("utf-8") == written, "the registry has changed: make models"


def test_the_page_tells_every_model_every_reason_and_every_source() -> None:
    page = PAGE.read_text("utf-8")
    for model in REGISTRY.models:
        assert f"`{model.key}`" in page
        if model.lora is not None and model.lora.reason:
            assert model.lora.reason.replace("|", "\\|") in page
    for one in REGISTRY.unsupported:
        assert one.title in page
        assert one.reason in page
    for source in {fact.source for model in REGISTRY.models for fact in model.sources}:
        assert " ".join(source.split()) in page


def test_a_stroke_in_a_fact_does_not_end_its_cell() -> None:
    model = REGISTRY.model("kling_v21").model_copy(update={"title": "a | b"})
    registry = Registry(models=(model,), base_models=(), default_video_model=model.key)
    assert "| a \\| b |" in write_page(registry, load_prices())


@pytest.mark.parametrize("model", REGISTRY.models, ids=lambda model: model.key)
def test_every_model_can_be_said_in_words(model: Model) -> None:
    assert lora_words(model)
    assert all(limit_words(model))
    assert price_words(load_prices().prices.get(model.key)) != "unknown"


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    assert sum(WIDTHS) + 2 * (len(WIDTHS) - 1) == 80
    for model in REGISTRY.models:
        cells = [f"{model.key} [1,2,3] 2026-09", lora_words(model), "; ".join(limit_words(model))]
        for cell, width in zip(cells, WIDTHS, strict=False):
            assert max(map(len, broken(cell, width))) <= width


def test_a_long_key_breaks_after_one_of_its_words() -> None:
    assert broken("kling_v25_turbo_replicate", 16) == ["kling_v25_turbo_", "replicate"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (DurationRule(field="d", wire="string", seconds=(5, 10), default=5), "5, 10 s"),
        (DurationRule(field="d", wire="number", seconds=(3, 4, 5, 6), default=5), "3–6 s"),
        (
            DurationRule(field="d", wire="frames", frames_per_second=16, min_frames=17, max_frames=81, default=5),
            "17–81 frames at 16/s",
        ),
        (DurationRule(field="d", wire="none", default=8), "8 s"),
    ],
)
def test_lengths_are_said_as_they_are_sold(rule: DurationRule, words: str) -> None:
    assert duration_words(rule) == words


@pytest.mark.parametrize(
    ("unit", "fields", "words"),
    [
        (PriceUnit.RUN_STEP, {"amount_usd": "0.002"}, "2 /1000 steps"),
        (PriceUnit.SECOND, {"amount_usd": "0.10"}, "0.1 /s"),
        (PriceUnit.VIDEO, {"amount_by_seconds": {6: "0.28", 10: "0.56"}}, "0.28/6s, 0.56/10s"),
        (PriceUnit.MACHINE_HOUR, {"amount_usd": "0"}, "free"),
        (PriceUnit.MACHINE_HOUR, {"amount_usd": "2.50"}, "2.5 /h"),
    ],
)
def test_prices_are_said_per_what_is_counted(unit: PriceUnit, fields: dict[str, object], words: str) -> None:
    price = Price.model_validate(
        {"model_key": "m", "unit": unit, "source": "s", "date": "2026-11", "confidence": "confirmed", **fields}
    )
    assert price_words(price) == words


def test_a_model_without_a_price_says_so() -> None:
    assert price_words(None) == "unknown"


def test_an_unproved_cell_an_old_one_and_one_of_an_older_entry_say_so() -> None:
    model = REGISTRY.model("flux_lora")
    assert proof_words(model, None, NOW) == "not yet"
    assert proof_words(model, proof_of(model), NOW) == "works 26-11-19"
    assert proof_words(model, proof_of(model, Verdict.IGNORED), NOW) == "ignored 26-11-19"
    old = proof_of(model, age=OLD_AFTER + timedelta(days=1))
    assert proof_words(model, old, NOW).endswith(", old")
    assert not proof_words(model, proof_of(model, age=OLD_AFTER), NOW).endswith(", old")
    changed = model.model_copy(update={"prompt_max_chars": 10})
    assert proof_words(changed, proof_of(model), NOW) == "of an older entry"


def test_a_trainers_proof_says_that_only_its_schema_was_read() -> None:
    trainer = REGISTRY.model("fal_flux_lora_fast")
    assert proof_words(trainer, proof_of(trainer), NOW) == "schema 26-11-19"
