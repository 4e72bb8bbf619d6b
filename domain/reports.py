"""What a season's report says: frozen records to fill from our tables, and the sums and shares drawn from them.

Pictures are named by the SHA-256 of their bytes, clips by their path beside the page. Money is `Decimal`
USD. Totals per stage, character and slot are never given, only counted from `costs`, so that they add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from domain.characters import CharacterKind, ImageType, LoraStatus
from domain.identity import KNOWS_NOTHING, SHARE_THAT_MUST_PASS, IdentityVerdict
from domain.jobs import Stage
from domain.records import Record
from domain.spending import AcceptedVideo


def _beside_the_page(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise ValueError(f"the path {path!r} must lead to a file beside or below the report, like clips/slot-06.mp4")
    return path


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ClipPath = Annotated[str, AfterValidator(_beside_the_page)]
"""Relative to the report, with forward slashes, never climbing out of its folder."""
Usd = Annotated[Decimal, Field(allow_inf_nan=False)]
Similarity = Annotated[float, Field(ge=-1.001, le=1.001, allow_inf_nan=False)]
"""-1…1, with the room for rounding that `domain.identity` allows."""
Count = Annotated[int, Field(ge=0)]


class Verdict(StrEnum):
    """What an identity check found."""

    ON_MODEL = "on_model"
    OFF_MODEL = "off_model"
    NOT_JUDGED = "not_judged"


class SlotState(StrEnum):
    """Where a slot stands when the report is written."""

    WON = "won"
    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    PLANNED = "planned"


class Urgency(StrEnum):
    """Why an item is on the list of things to do: a person must decide, something broke, or it would help."""

    DECISION = "decision"
    FAILURE = "failure"
    ADVICE = "advice"


class IdentityResult(Record):
    """A score with everything it may not be shown without.

    `score` and `control` are mean similarities, the control being the same pictures asked for without the LoRA; a
    score without control says why in `no_control_because`. `lower95` is the lower 95 % bound of score − control,
    None where there are too few pairs for one. `is_control_on_model` is the verdict's own rule applied to the
    control; left out, the control's mean is held against the threshold.
    """

    metric: str
    threshold: Similarity
    calibration: str
    judged: Count
    abstained: Count
    abstained_because: tuple[str, ...] = ()
    score: Similarity | None = None
    control: Similarity | None = None
    no_control_because: str | None = None
    lower95: float | None = None
    is_control_on_model: bool | None = None
    verdict: Verdict
    sentence: str
    weak_because: str | None = None

    @classmethod
    def of_verdict(
        cls, verdict: IdentityVerdict, weak_because: str | None = None, no_control_because: str | None = None
    ) -> Self:
        """The judgement of a LoRA or of a clip, as the page shows it; the last is told only without a control."""
        score = verdict.score
        outcome = Verdict.ON_MODEL if verdict.is_passed else Verdict.OFF_MODEL
        return cls(
            metric=score.metric,
            threshold=score.threshold,
            calibration=score.calibrated_by,
            judged=score.judged,
            abstained=score.abstained,
            score=score.mean_with_lora,
            control=score.mean_control,
            no_control_because=no_control_because if score.mean_control is None else None,
            lower95=None if score.lower95_of_delta <= KNOWS_NOTHING else score.lower95_of_delta,
            is_control_on_model=score.control_share_above_threshold >= SHARE_THAT_MUST_PASS,
            verdict=Verdict.NOT_JUDGED if score.mean_with_lora is None else outcome,
            sentence=verdict.reason,
            weak_because=weak_because,
        )

    @property
    def difference(self) -> float | None:
        """Score − control; None where one of them is missing."""
        return None if self.score is None or self.control is None else self.score - self.control

    @model_validator(mode="after")
    def _carries_its_control(self) -> Self:
        if self.score is not None and self.control is None and not self.no_control_because:
            raise ValueError("an identity score needs its control, or `no_control_because`")
        if self.score is None and self.verdict is not Verdict.NOT_JUDGED:
            raise ValueError("a verdict needs a score; without one it is `not_judged`")
        if self.score is not None and self.judged == 0:
            raise ValueError("a score needs at least one judged picture")
        return self


class SheetImage(Record):
    """One view of the reference sheet, or one original reference."""

    view: ImageType
    sha256: Sha256
    is_primary: bool = False


class LoraReport(Record):
    """A character's LoRA for one base model."""

    base_model: str
    version: int
    status: LoraStatus
    trigger_word: str
    trainer: str
    steps: Count
    trained_images: Count
    held_out_images: Count
    training_cost_usd: Usd | None = None
    identity: IdentityResult | None = None
    note: str | None = None


class CharacterReport(Record):
    """One of the cast. Without LoRA, `no_lora_because` says why; `sheet_note` says where the pictures are from."""

    name: str
    kind: CharacterKind
    description: str = ""
    sheet: tuple[SheetImage, ...] = ()
    sheet_note: str | None = None
    loras: tuple[LoraReport, ...] = ()
    no_lora_because: str | None = None
    warnings: tuple[str, ...] = ()


class SlotCharacter(Record):
    """How a character came into a slot. `route_key` (a word of `applications.Route`, or
    `won`) picks the colour, `route_label` is read; `because` says why it fell back, None where it did not."""

    name: str
    route_key: str
    route_label: str
    because: str | None = None
    identity: IdentityResult | None = None


class SlotReport(Record):
    """One slot. `picture` is a frame of the clip (its poster), `still` the LoRA picture the clip began from.

    `reason` says why it waits or failed, `command` what to type then.
    """

    number: Annotated[int, Field(ge=1)]
    state: SlotState
    prompt: str = ""
    picture: Sha256 | None = None
    still: Sha256 | None = None
    clip: ClipPath | None = None
    seconds: float | None = None
    video_model: str | None = None
    characters: tuple[SlotCharacter, ...] = ()
    reason: str | None = None
    command: str | None = None
    notes: tuple[str, ...] = ()


class CostLine(Record):
    """One purchase, foreseen or made. `forecast_usd` None: nobody foresaw it; `actual_usd` None: not billed (yet)."""

    stage: Stage
    api_name: str
    character: str | None = None
    slot_number: int | None = None
    forecast_usd: Usd | None = None
    actual_usd: Usd | None = None
    is_simulated: bool = False


class TodoItem(Record):
    """Something that waits for a person: what, why, and the exact command."""

    urgency: Urgency
    what: str
    why: str = ""
    command: str = ""


class SeasonReport(Record):
    """Everything on the page. `gaps` are the slot numbers that have no clip in the assembled season; accepted are the
    rendered clips that are in it, not those that were brought along."""

    title: str
    slug: str
    owner: str
    time_zone: str
    begun_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    generated_at: AwareDatetime
    is_simulated: bool
    budget_usd: Usd
    spent_usd: Usd
    reserved_usd: Usd = Decimal(0)
    forecast_usd: Usd
    season_video: ClipPath | None = None
    season_poster: Sha256 | None = None
    season_seconds: float = 0.0
    accepted_clips: Count = 0
    accepted_seconds: float = 0.0
    characters: tuple[CharacterReport, ...] = ()
    slots: tuple[SlotReport, ...] = ()
    gaps: tuple[int, ...] = ()
    costs: tuple[CostLine, ...] = ()
    todo: tuple[TodoItem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def slot_numbers(self) -> tuple[int, ...]:
        """Every number on the strip: the slots and the gaps nobody wrote a slot for, in order."""
        return tuple(sorted({slot.number for slot in self.slots} | set(self.gaps)))

    @property
    def usd_per_accepted_second(self) -> Decimal | None:
        """The headline: everything spent, over the seconds of accepted video; None while there is none."""
        return AcceptedVideo(clips=self.accepted_clips, seconds=self.accepted_seconds).usd_per_second(self.spent_usd)

    @property
    def done_count(self) -> int:
        """Slots with a clip: won or rendered."""
        return sum(slot.state in (SlotState.WON, SlotState.DONE) for slot in self.slots)

    @property
    def unexplained_usd(self) -> Decimal:
        """What was spent beyond the cost lines; anything but zero is an error in the books, and the page says so."""
        return self.spent_usd - money_of(self.costs).actual_usd

    @model_validator(mode="after")
    def _one_report_per_slot(self) -> Self:
        if len({slot.number for slot in self.slots}) != len(self.slots):
            raise ValueError("a slot number appears twice in the report")
        return self


class Money(Record):
    """Forecast against fact, USD. `unforeseen_usd` is the part of the fact that nobody had foreseen, `unbilled_usd`
    the part of the forecast that has not come to a bill; `is_billed` where anything has."""

    forecast_usd: Decimal
    actual_usd: Decimal
    unforeseen_usd: Decimal
    unbilled_usd: Decimal
    is_billed: bool


def money_of(lines: Iterable[CostLine]) -> Money:
    """The sums of some cost lines; an amount nobody knows counts as zero."""
    forecast = actual = unforeseen = unbilled = Decimal(0)
    is_billed = False
    for line in lines:
        forecast += line.forecast_usd or Decimal(0)
        if line.actual_usd is None:
            unbilled += line.forecast_usd or Decimal(0)
            continue
        is_billed = True
        actual += line.actual_usd
        if line.forecast_usd is None:
            unforeseen += line.actual_usd
    return Money(
        forecast_usd=forecast,
        actual_usd=actual,
        unforeseen_usd=unforeseen,
        unbilled_usd=unbilled,
        is_billed=is_billed,
    )


class OnModelShare(Record):
    """How many rendered characters are on-model, beside how many would be without their LoRA.

    `judged`, `on_model` and `control_on_model` count the same pairs (one character in one slot, judged with and
    without LoRA), so that the two shares compare like with like. `no_control` were judged without one.
    """

    judged: int
    on_model: int
    control_on_model: int
    no_control: int
    no_control_on_model: int
    not_judged: int


def on_model_share(slots: Iterable[SlotReport]) -> OnModelShare:
    """Count over the rendered slots; won clips are what is learned from, and are left out."""
    judged = on_model = control_on_model = no_control = no_control_on_model = not_judged = 0
    for slot in slots:
        if slot.state is not SlotState.DONE:
            continue
        for result in (character.identity for character in slot.characters):
            if result is None:
                continue
            is_on_model = result.verdict is Verdict.ON_MODEL
            if result.verdict is Verdict.NOT_JUDGED:
                not_judged += 1
            elif result.control is None:
                no_control += 1
                no_control_on_model += is_on_model
            else:
                judged += 1
                on_model += is_on_model
                is_control = result.is_control_on_model
                control_on_model += result.control >= result.threshold if is_control is None else is_control
    return OnModelShare(
        judged=judged,
        on_model=on_model,
        control_on_model=control_on_model,
        no_control=no_control,
        no_control_on_model=no_control_on_model,
        not_judged=not_judged,
    )
