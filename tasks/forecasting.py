"""Forecasting a manifest: what the flows would buy for it, before anything is stored or spent."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from domain.errors import BadInput
from domain.expectations import Expectations, load_expectations
from domain.forecasts import Forecast, Purchase
from domain.offers import still_model
from domain.pictures import CaptionMode
from domain.seasons import Character, CharacterEntry, Season, SeasonManifest
from domain.training_sets import HELD_OUT_AIM, TRAINED_AIM, held_out_count
from domain.vendors import WORKS, catalogue_of, vendor_for
from tasks.manifest_check import ManifestFacts, check_manifest, season_of
from tasks.purchases import Learner, Member, learning_purchases, new_learner, slot_purchases
from tasks.references import reference_candidates

if TYPE_CHECKING:
    from providers.wiring import Ports

LOOKED_BACK = timedelta(days=180)
"""Older jobs tell little of a vendor today."""

FILE_SOUND = ("healthy", "suspect")


def forecast_manifest(ports: Ports, path: Path) -> Forecast:
    """Check a manifest and price it as if nothing of it were bought yet. `BadInput` as an import would give it.

    Opens the database only where there is one already, for what its ledger has measured, or where the manifest names a
    LoRA by its id.
    """
    facts = check_manifest(ports, path)
    manifest = facts.manifest
    season = season_of(manifest)
    notes: list[str] = []
    cast = [
        _member_of_entry(ports, season, entry, number, facts, notes)
        for number, entry in enumerate(manifest.characters, 1)
    ]
    purchases = [purchase for member in cast for purchase in learning_purchases(ports.registry, season, member)]
    for slot in sorted(manifest.slots, key=lambda one: one.number):
        if slot.prompt is not None:
            purchases += slot_purchases(ports.registry, season, slot, cast, notes)
    notes += _character_budgets(manifest, purchases)
    is_known = _has_database(ports)
    if is_known and not season.is_simulated:
        notes += _owner_notes(ports, manifest.owner, purchases)
    return Forecast(
        season=manifest.season,
        is_simulated=season.is_simulated,
        budget_usd=manifest.budget_usd,
        free_usd=manifest.budget_usd,
        purchases=tuple(purchases),
        expectations=expectations_for(ports, season) if is_known else load_expectations(),
        notes=tuple(dict.fromkeys(notes)),
    )


def _character_budgets(manifest: SeasonManifest, purchases: list[Purchase]) -> list[str]:
    """The characters whose own budget does not hold what is bought for them."""
    notes = []
    for entry in manifest.characters:
        needed = sum((one.cost_usd for one in purchases if one.character == entry.name), Decimal(0))
        if entry.budget_usd is not None and needed > entry.budget_usd:
            notes.append(
                f"the budget of the character {entry.name} is {entry.budget_usd} USD, and {needed:.2f} are to come."
            )
    return notes


def _owner_notes(ports: Ports, owner: str, purchases: list[Purchase]) -> list[str]:
    """Where what the owner may spend in all seasons does not hold this one too."""
    try:
        budget = ports.budgets.of_owner(owner)
    except BadInput:  # nobody has imported a season of theirs yet
        return []
    needed = sum((one.cost_usd for one in purchases), Decimal(0))
    if budget is None or needed <= budget.free_usd:
        return []
    return [f"the budget of the owner {owner} has {budget.free_usd:.2f} USD free, and this season takes {needed:.2f}."]


def _member_of_entry(
    ports: Ports, season: Season, entry: CharacterEntry, number: int, facts: ManifestFacts, notes: list[str]
) -> Member:
    character = Character(
        id=number,
        season_id=0,
        name=entry.name,
        description=entry.description,
        trigger_word=entry.trigger_word,
        kind=entry.kind,
        base_models=entry.base_models,
        lora=entry.lora,
        lora_scale=entry.lora_scale,
        min_images=entry.min_images,
        training=entry.training,
        captions=entry.captions,
    )
    loras = []
    for place, base in enumerate(sorted(entry.base_models) if entry.is_lora_wanted else []):
        trouble = ""
        if not entry.is_trained_here:
            path = facts.given_loras.get(entry.name)
            trouble = file_trouble(ports, path, base) if path is not None else ""
            if path is None:
                notes.append(f"{entry.name}: the LoRA on the web was not fetched; it is taken to be sound.")
        if trouble:
            notes.append(f"{entry.name}: the given LoRA {trouble}, so nothing is bought for it.")
        loras.append(new_learner(ports.registry, season, character, base, 1000 * number + place, not trouble))
    captions = 0
    if entry.is_trained_here and entry.captions is CaptionMode.DESCRIBED:
        total = min(facts.pictures_at_most[entry.name], TRAINED_AIM + HELD_OUT_AIM)
        captions = total - held_out_count(total, entry.min_images)
        notes.append(
            f"{entry.name}: {captions} pictures to describe at most; how many are good is known once the clips are "
            f"looked through (onmodel dataset)."
        )
    return _new_member(ports, season, character, captions, tuple(loras))


def _new_member(
    ports: Ports, season: Season, character: Character, captions: int, loras: tuple[Learner, ...]
) -> Member:
    """A new character with the references that follow from its LoRAs; a review waits for a person before the pin."""
    is_drawn = any(lora.is_usable and still_model(ports.registry, season, lora.base_model) for lora in loras)
    return Member(
        character=character,
        captions=captions,
        loras=loras,
        references=len(reference_candidates()) if is_drawn else 0,
        is_pinned=is_drawn and not season.review,
    )


def file_trouble(ports: Ports, path: Path, base: str) -> str:
    report = ports.check_lora_file(path, expected_base=base)
    if report.verdict in FILE_SOUND:
        return ""
    return f"file is {report.verdict.replace('_', ' ')} ({'; '.join(report.reasons)})"


def _has_database(ports: Ports) -> bool:
    """Whether there is one already; a forecast of a file makes none."""
    return ports.settings.database_url is not None or (ports.settings.home / "postgres").is_dir()


def expectations_for(ports: Ports, season: Season) -> Expectations:
    """The assumed figures, and the ledger's own of the vendors this season uses, where it has enough of them.

    A rehearsal is reckoned with the vendor whose protocol the sandbox speaks: it tells what the season would take.
    """
    asked = sorted({catalogue_of(vendor_for(season, work)) for work in WORKS})
    now = ports.clock.now()
    jobs = [job for vendor in asked for job in ports.ledger.settled_jobs(vendor, now - LOOKED_BACK, now)]
    return load_expectations().with_measured(jobs)
