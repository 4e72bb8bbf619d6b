"""The manifest of a season, as a person writes it in `season.yaml`, with every rule it must keep."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from domain.characters import TRIGGER_WORD, CharacterKind, make_trigger_word, name_problem
from domain.prompts import mentioned_names, unknown_mentions
from domain.records import Record
from domain.registry import load_registry

MAX_SLOTS = 75
SLUG = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
VENDORS = ("sandbox", "fal", "runpod", "replicate", "comfyui", "local")
BUILT_VENDORS = ("sandbox", "fal")
DEFAULT_MIN_IMAGES = 10


class TrainingOptions(Record):
    """What a person may set of a training; unset options take the trainer's default."""

    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    rank: Annotated[int, Field(ge=1, le=256)] | None = None


class VendorChoice(Record):
    """Which vendor does which kind of work, in order of preference."""

    train: tuple[str, ...]
    image: tuple[str, ...]
    video: tuple[str, ...]


class CharacterEntry(Record):
    """One character of the manifest. Paths are relative to the manifest."""

    name: str
    description: str = ""
    trigger_word: str = ""
    kind: CharacterKind = CharacterKind.PERSON
    base_models: tuple[str, ...] = ("flux-1-dev",)
    clips: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    training: TrainingOptions = TrainingOptions()
    lora: str = "auto"
    lora_scale: Annotated[float, Field(gt=0, le=4)] = 0.8
    min_images: Annotated[int, Field(ge=1, le=100)] = DEFAULT_MIN_IMAGES

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        if problem := name_problem(name):
            raise ValueError(f"{name!r} {problem}")
        return name

    @field_validator("trigger_word")
    @classmethod
    def _trigger_is_a_word(cls, word: str) -> str:
        if word and not TRIGGER_WORD.match(word):
            raise ValueError(f"{word!r} is no trigger word; write 6 to 32 letters, digits or _, such as KAEL_07")
        return word

    @field_validator("base_models")
    @classmethod
    def _bases_are_known(cls, bases: tuple[str, ...]) -> tuple[str, ...]:
        known = {base.key for base in load_registry().base_models}
        for base in bases:
            if base not in known:
                raise ValueError(f"{base!r} is no base model; write one of {', '.join(sorted(known))}")
        if len(set(bases)) != len(bases):
            raise ValueError("names a base model twice; write each once")
        return bases

    @property
    def is_lora_wanted(self) -> bool:
        return self.lora != "none" and bool(self.base_models)

    @property
    def is_trained_here(self) -> bool:
        return self.lora == "auto" and bool(self.base_models)


class SlotEntry(Record):
    """One slot: already won (`video`) or to be rendered (`prompt`)."""

    number: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    video: str | None = None
    prompt: str | None = None
    video_model: str | None = None
    seconds: Annotated[float, Field(gt=0, le=60)] | None = None
    scene_references: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_won_or_wanted(self) -> Self:
        if (self.video is None) == (self.prompt is None):
            raise ValueError("needs either video (a clip that already won) or prompt (a clip to render), not both")
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError("has an empty prompt; say what happens in the slot")
        if self.video_model is not None:
            known = [model.key for model in load_registry().video_models()]
            if self.video_model not in known:
                raise ValueError(f"{self.video_model!r} is no video model; write one of {', '.join(known)}")
        return self


class SeasonManifest(Record):
    """A whole season, checked. Two manifests that mean the same are equal."""

    season: str
    owner: str = "me"
    time_zone: str = "UTC"
    budget_usd: Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=2)]
    vendor: VendorChoice = VendorChoice(train=("sandbox",), image=("sandbox",), video=("sandbox",))
    sandbox: bool = False
    review: bool = False
    characters: tuple[CharacterEntry, ...] = ()
    slots: tuple[SlotEntry, ...] = ()

    @field_validator("season", "owner")
    @classmethod
    def _is_slug(cls, value: str) -> str:
        if not SLUG.match(value):
            raise ValueError(f"{value!r} is no slug; write small letters, digits and hyphens, such as neon-harbor")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone; write one such as Europe/Lisbon") from error
        return name

    @field_validator("vendor", mode="before")
    @classmethod
    def _vendor_per_stage(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"train": value, "image": value, "video": value}
        if isinstance(value, VendorChoice) or not isinstance(value, dict):
            return value
        choice: dict[str, tuple[str, ...]] = {}
        for stage, names in value.items():
            listed = (names,) if isinstance(names, str) else tuple(names)
            for name in listed:
                if name not in VENDORS:
                    raise ValueError(f"{name!r} is no vendor; write one of {', '.join(VENDORS)}")
                if name not in BUILT_VENDORS:
                    raise ValueError(f"{name!r} is not in this version yet; write {' or '.join(BUILT_VENDORS)}")
            choice[stage] = listed
        return {**dict.fromkeys(("train", "image", "video"), ("sandbox",)), **choice}

    @model_validator(mode="after")
    def _characters_differ(self) -> Self:
        seen: dict[str, str] = {}
        for character in self.characters:
            key = character.name.casefold()
            if key in seen:
                raise ValueError(f"characters: {character.name!r} is declared twice; give each its own name")
            seen[key] = character.name
        words: dict[str, str] = {}
        for character in self.characters:
            if not character.trigger_word:
                continue
            key = character.trigger_word.casefold()
            if key in words:
                raise ValueError(
                    f"characters: {words[key]!r} and {character.name!r} share the trigger word "
                    f"{character.trigger_word!r}; give each its own, or leave it out to have one made"
                )
            words[key] = character.name
        return self

    @model_validator(mode="after")
    def _slots_make_sense(self) -> Self:
        numbers = [slot.number for slot in self.slots]
        if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
            raise ValueError(f"slots: number {twice[0]} is used twice; each slot has its own number")
        names = [character.name for character in self.characters]
        for slot in self.slots:
            if slot.prompt and (unknown := unknown_mentions(slot.prompt, names)):
                raise ValueError(
                    f"slots: slot {slot.number} names {unknown[0]!r}, who is not in characters; "
                    f"declared are {', '.join(names) or 'none'}"
                )
        return self

    def with_trigger_words(self) -> SeasonManifest:
        """The same season with a trigger word made for every character that has none."""
        taken = {character.trigger_word for character in self.characters if character.trigger_word}
        characters = []
        for character in self.characters:
            word = character.trigger_word or make_trigger_word(character.name, taken)
            taken.add(word)
            characters.append(character.model_copy(update={"trigger_word": word}))
        return self.model_copy(update={"characters": tuple(characters)})

    def cast_of(self, slot: SlotEntry) -> tuple[str, ...]:
        """Names of the characters in a slot's prompt, in order of appearance."""
        return mentioned_names(slot.prompt or "", [character.name for character in self.characters])

    def gaps(self) -> tuple[int, ...]:
        """Slot numbers missing between 1 and the last slot."""
        present = {slot.number for slot in self.slots}
        return tuple(number for number in range(1, max(present, default=0)) if number not in present)


class Season(Record):
    """A season as it stands in the database."""

    id: int
    slug: str
    owner: str
    time_zone: str
    vendor: VendorChoice
    is_simulated: bool
    review: bool
    manifest_sha256: str
    finished_sha256: str | None
    video_sha256: str | None
    video_seconds: float | None


class Character(Record):
    """A character of a season as it stands in the database."""

    id: int
    season_id: int
    name: str
    description: str
    trigger_word: str
    kind: CharacterKind
    base_models: tuple[str, ...]
    lora: str
    lora_scale: float
    min_images: int
    training: TrainingOptions

    @property
    def is_lora_wanted(self) -> bool:
        return self.lora != "none" and bool(self.base_models)
