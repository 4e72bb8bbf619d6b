"""A season worth reporting: three trained characters, one untrained, 75 slots, and trouble."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

from domain.characters import CharacterKind, ImageType, LoraStatus
from domain.jobs import Stage
from domain.reports import (
    CharacterReport,
    CostLine,
    IdentityResult,
    LoraReport,
    SeasonReport,
    SheetImage,
    SlotCharacter,
    SlotReport,
    SlotState,
    TodoItem,
    Urgency,
    Verdict,
)
from tests.report_drawings import BRAM, HOSTILE, MEI, ORIN, PictureShelf


def identity(score: float | None, control: float | None, *, judged: int = 8, abstained: int = 0) -> IdentityResult:
    """A plausible result; without a score everything was abstained on."""
    threshold = 0.62
    if score is None:
        verdict, sentence = Verdict.NOT_JUDGED, "Nothing could be judged: the scorer abstained on all 5 views."
    elif score >= threshold:
        verdict = Verdict.ON_MODEL
        sentence = f"The LoRA draws the character: {score:.2f} with the LoRA, and 5 of 5 views reach the threshold."
    else:
        verdict, sentence = Verdict.OFF_MODEL, "The LoRA helps but not enough: only 2 of 5 views reach the threshold."
    return IdentityResult(
        metric="patch-colour-v1",
        threshold=threshold,
        calibration="midway between 9 pictures of the character and 27 of others",
        judged=0 if score is None else judged,
        abstained=abstained,
        abstained_because=("no subject found",) if abstained else (),
        score=score,
        control=control,
        no_control_because=None if control is not None else "no LoRA took part",
        lower95=None if score is None or control is None else score - control - 0.09,
        verdict=verdict,
        sentence=sentence,
    )


def rich_season(shelf: PictureShelf, *, is_simulated: bool = True, budget_usd: str = "60") -> SeasonReport:
    """Every kind of character, route, state and trouble on one page."""
    characters = _cast(shelf)
    slots: list[SlotReport] = []
    gaps = [33, 34, 35, 36, 52]
    costs = [
        CostLine(
            stage=Stage.LORA_TRAINING,
            api_name="flux-lora-fast-training",
            character=MEI,
            forecast_usd=Decimal("2.00"),
            actual_usd=Decimal("2.00"),
            is_simulated=is_simulated,
        ),
        CostLine(
            stage=Stage.LORA_TRAINING,
            api_name="flux-lora-fast-training",
            character=HOSTILE,
            forecast_usd=Decimal("2.00"),
            actual_usd=Decimal("2.00"),
            is_simulated=is_simulated,
        ),
        CostLine(
            stage=Stage.LORA_TRAINING,
            api_name="flux-lora-fast-training",
            character=HOSTILE,
            forecast_usd=None,
            actual_usd=Decimal("2.00"),
            is_simulated=is_simulated,
        ),
        CostLine(
            stage=Stage.LORA_TRAINING,
            api_name="wan-22-trainer",
            character=ORIN,
            forecast_usd=Decimal("4.50"),
            actual_usd=Decimal("4.50"),
            is_simulated=is_simulated,
        ),
    ]
    costs += [
        CostLine(
            stage=stage,
            api_name="flux-lora",
            character=name,
            forecast_usd=Decimal("0.175"),
            actual_usd=Decimal("0.175"),
            is_simulated=is_simulated,
        )
        for name in (MEI, HOSTILE, ORIN)
        for stage in (Stage.IDENTITY_CHECK, Stage.REFERENCES)
    ]
    for number in range(1, 76):
        if number in gaps[:4]:
            continue
        slot = _slot(shelf, number)
        slots.append(slot)
        if slot.state is SlotState.WON:
            continue
        is_bought = slot.state is SlotState.DONE or number == 29
        costs.append(
            CostLine(
                stage=Stage.VIDEO,
                api_name=slot.video_model or "?",
                slot_number=number,
                forecast_usd=Decimal("0.35"),
                actual_usd=Decimal("0.35") if is_bought else None,
                is_simulated=is_simulated,
            )
        )
        if slot.still:
            costs.append(
                CostLine(
                    stage=Stage.LORA_APPLICATION,
                    api_name="lora_preprocessing",
                    slot_number=number,
                    character=slot.characters[0].name,
                    forecast_usd=Decimal("0.035"),
                    actual_usd=Decimal("0.035"),
                    is_simulated=is_simulated,
                )
            )
    spent = sum((line.actual_usd or Decimal(0) for line in costs), Decimal(0))
    forecast = sum((line.forecast_usd or Decimal(0) for line in costs), Decimal(0))
    return SeasonReport(
        title="Neon Harbor",
        slug="neon-harbor",
        owner="studio-a",
        time_zone="Europe/Lisbon",
        begun_at=datetime(2031, 5, 3, 8, 12, tzinfo=UTC),
        ended_at=datetime(2031, 5, 5, 23, 40, tzinfo=UTC),
        generated_at=datetime(2031, 5, 5, 23, 41, tzinfo=UTC),
        is_simulated=is_simulated,
        budget_usd=Decimal(budget_usd),
        spent_usd=spent,
        reserved_usd=Decimal("0.35"),
        forecast_usd=forecast,
        season_video="season.mp4",
        season_poster=slots[5].picture,
        season_seconds=347.5,
        accepted_clips=sum(slot.state is SlotState.DONE for slot in slots),
        accepted_seconds=sum(slot.seconds or 0.0 for slot in slots if slot.state is SlotState.DONE),
        characters=characters,
        slots=tuple(slots),
        gaps=(*gaps, 29, 41, 60),
        costs=tuple(costs),
        todo=(
            TodoItem(
                urgency=Urgency.DECISION,
                what="Slot 41: the vendor's answer was lost, the clip may exist",
                why="It was never sent again, so that it is not paid twice. Look there, then say what you found.",
                command="onmodel jobs resolve 5f0c1a2b --not-there",
            ),
            TodoItem(
                urgency=Urgency.FAILURE,
                what="Slot 29 failed: the model refused the prompt",
                why="Write its prompt in season.yaml differently, then run the season again: only this slot is bought.",
                command="onmodel run season.yaml --out 'onmodel-out/neon-harbor'",
            ),
            TodoItem(
                urgency=Urgency.ADVICE,
                what=f"{HOSTILE} is off-model in 4 slots",
                why="Two more of its winning clips would show it from behind.",
                command="onmodel train-character neon-harbor Mei --steps 1500 && echo '<b>done</b>'",
            ),
        ),
        warnings=("art/mei-front.png is 480 px wide: left out of training, because it would have to be enlarged.",),
    )


def _cast(shelf: PictureShelf) -> tuple[CharacterReport, ...]:
    views = (ImageType.SIDE, ImageType.FRONTAL, ImageType.THREE_QUARTER, ImageType.FULL_BODY, ImageType.ACTION)

    def sheet(name: str) -> tuple[SheetImage, ...]:
        return tuple(
            SheetImage(view=view, sha256=shelf.draw((name,), place * 3 + 1, True), is_primary=view is ImageType.FRONTAL)
            for place, view in enumerate(views)
        )

    def lora(base: str, status: LoraStatus, result: IdentityResult | None, **more: object) -> LoraReport:
        facts: dict[str, object] = {
            "base_model": base,
            "version": 1,
            "status": status,
            "trigger_word": "MEIKOB_01",
            "trainer": "flux-lora-fast-training",
            "steps": 1000,
            "trained_images": 18,
            "held_out_images": 5,
            "training_cost_usd": Decimal("2.00"),
            "identity": result,
        }
        return LoraReport.model_validate(facts | more)

    return (
        CharacterReport(
            name=MEI,
            kind=CharacterKind.ILLUSTRATED,
            description="fisher’s daughter, red coat, short black hair, never without her father’s knife",
            sheet=sheet(MEI),
            sheet_note="Reference set of 3 May, drawn with LoRA v1 and pinned.",
            loras=(lora("FLUX.1 dev", LoraStatus.READY, identity(0.83, 0.41, judged=5)),),
        ),
        CharacterReport(
            name=HOSTILE,
            kind=CharacterKind.PERSON,
            description='harbour pilot "&amp;" <img src=x onerror=alert(2)> grey-haired, blue oilskin',
            sheet=sheet(HOSTILE),
            loras=(
                lora(
                    "FLUX.1 dev",
                    LoraStatus.FAILED,
                    identity(0.57, 0.46, judged=4, abstained=1),
                    version=2,
                    trigger_word="SCRALE_01",
                    trained_images=11,
                    held_out_images=2,
                    training_cost_usd=Decimal("4.00"),
                    note="Second attempt; the first ended at the vendor without a file.",
                ),
                lora(
                    "Wan 2.2 T2V A14B",
                    LoraStatus.TRAINING,
                    None,
                    trigger_word="SCRALE_01",
                    trainer="wan-22-trainer",
                    training_cost_usd=None,
                ),
            ),
            warnings=("Only 2 pictures could be held out: its judgement is weaker.",),
        ),
        CharacterReport(
            name=ORIN,
            kind=CharacterKind.ILLUSTRATED,
            description="cabin boy in a yellow slicker",
            sheet=sheet(ORIN)[:3],
            sheet_note="Two of the five views were refused by the vendor.",
            loras=(
                lora(
                    "Wan 2.2 T2V A14B",
                    LoraStatus.READY,
                    identity(0.74, 0.39, judged=5).model_copy(
                        update={"weak_because": "the threshold rests on 3 held-out pictures"}
                    ),
                    trigger_word="ORIN_01",
                    trainer="wan-22-trainer",
                    training_cost_usd=Decimal("4.50"),
                ),
            ),
        ),
        CharacterReport(
            name=BRAM,
            kind=CharacterKind.OTHER,
            no_lora_because="it has two usable pictures, and training needs ten",
            sheet=(SheetImage(view=ImageType.REFERENCE, sha256=shelf.draw((BRAM,), 2)),),
            sheet_note="Original references.",
        ),
    )


def _slot(shelf: PictureShelf, number: int) -> SlotReport:
    if number <= 4:
        return SlotReport(
            number=number,
            state=SlotState.WON,
            picture=shelf.draw((MEI,), number),
            clip=f"clips/slot-{number:02d}.mp4",
            seconds=5.0,
        )
    if number == 29:
        return SlotReport(
            number=29,
            state=SlotState.FAILED,
            prompt=f"@{MEI} throws the knife at @{HOSTILE}",
            video_model="kling_v25_turbo",
            reason="The model refused the prompt (content_policy_violation) on all 3 tries.",
            command="onmodel run season.yaml",
            characters=(SlotCharacter(name=MEI, route_key="preprocessed", route_label="LoRA still → video"),),
        )
    if number == 41:
        return SlotReport(
            number=41,
            state=SlotState.WAITING,
            prompt=f"@{ORIN} counts the gulls",
            video_model="wan_22_t2v_lora",
            reason="The answer to the paid request was lost. It waits for a person and is never sent again on a guess.",
            command="onmodel jobs resolve 5f0c1a2b --not-there",
            characters=(SlotCharacter(name=ORIN, route_key="direct", route_label="direct LoRA"),),
        )
    if number in (52, 60):
        return SlotReport(
            number=number,
            state=SlotState.PLANNED,
            prompt=f"The pier is empty. @{BRAM} waits.",
            video_model="kling_o1_reference",
        )
    wave = 0.12 * math.sin(number * 1.3)
    kind = number % 5
    still = None
    names: tuple[str, ...]
    if kind == 0:
        names, model, route = (MEI, BRAM), "kling_o1_reference", ("elements", "elements")
    elif kind == 1:
        names, model, route = (MEI,), "kling_v25_turbo", ("preprocessed", "LoRA still → video")
        still = shelf.draw(names, number + 100)
    elif kind == 2:
        names, model, route = (ORIN,), "wan_22_t2v_lora", ("direct", "direct LoRA")
    elif kind == 3:
        names, model, route = (HOSTILE,), "hailuo_23", ("originals", "original references")
    else:
        names, model, route = (MEI, ORIN), "veo_31", ("elements", "elements")
    prompts = [
        "@{0} runs across the wet pier at night, neon in every puddle, and does not look back",
        "Close on @{0}: rain on the window, the harbour lights out of focus behind",
        "@{0} lifts the crate; gulls scatter",
        "Wide shot. The ferry leaves, @{0} small at the rail, wind from the left, first snow of the year",
    ]
    players = []
    for name in names:
        if name == BRAM:
            players.append(
                SlotCharacter(
                    name=name,
                    route_key="originals",
                    route_label="original references",
                    because="It has no LoRA.",
                    identity=identity(0.66 + wave, None, judged=6, abstained=2),
                )
            )
        elif name == HOSTILE:
            players.append(
                SlotCharacter(
                    name=name,
                    route_key=route[0],
                    route_label=route[1],
                    because="Its LoRA is failed (off-model), so the original references were used.",
                    identity=identity(0.55 + wave, 0.44, judged=8),
                )
            )
        else:
            result = identity(None, None, abstained=8) if number == 17 else identity(0.78 + wave, 0.43 + wave / 3)
            players.append(SlotCharacter(name=name, route_key=route[0], route_label=route[1], identity=result))
    second = f", and @{names[1]} turns around" if len(names) > 1 else ""
    return SlotReport(
        number=number,
        state=SlotState.DONE,
        prompt=prompts[number % 4].format(names[0]) + second,
        picture=shelf.draw(names, number),
        still=still,
        clip=f"clips/slot-{number:02d}.mp4",
        seconds=5.0,
        video_model=model,
        characters=tuple(players),
        notes=("Off-model at first: rendered once more.",) if number == 23 else (),
    )


def empty_season(**more: object) -> SeasonReport:
    """A season of which nothing is known but what is given."""
    moment = datetime(2031, 5, 3, 8, tzinfo=UTC)
    facts: dict[str, object] = {
        "title": "Nothing yet", "slug": "nothing-yet", "owner": "studio-a", "time_zone": "UTC", "begun_at": moment,
        "generated_at": moment, "is_simulated": False, "budget_usd": Decimal(60), "spent_usd": Decimal(0),
        "forecast_usd": Decimal(0),
    }  # fmt: skip
    return SeasonReport.model_validate(facts | more)
