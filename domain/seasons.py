"""The manifest of a season, as a person writes it in `season.yaml`, with every rule it must keep."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from domain.budgets import AtLimit
from domain.characters import TRIGGER_WORD, CharacterKind, make_trigger_word, name_problem
from domain.model_rules import ModelKind
from domain.pictures import CaptionMode
from domain.prompts import mentioned_names, unknown_mentions
from domain.records import Record
from domain.registry import load_registry

MAX_SLOTS = 75
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VENDORS = ("sandbox", "fal", "runpod", "replicate", "comfyui", "local")
DEFAULT_MIN_IMAGES = 10

LIFTED_LIMIT_USD = Decimal(50_000_000)
"""The limit of a character's budget that was taken out of the manifest after it had been used: nothing reaches it, and
what the character has spent stays counted. Fits the column, numeric(12, 4)."""


def _is_plain(text: str) -> str:
    if bad := next((char for char in text if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"), None):
        raise ValueError(f"holds the control character {bad!r}; write plain text")
    return unicodedata.normalize("NFC", text)


def _is_path(name: str) -> str:
    if not name.strip():
        raise ValueError("is empty; write the path of a file")
    if bad := next((char for char in name if unicodedata.category(char) in ("Cc", "Cs")), None):
        raise ValueError(f"holds the control character {bad!r}; write the path of a file")
    return name


def _is_no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; write a number")  # noqa: TRY004 (pydantic reports ValueErrors only)
    return value


NO_FLAG = BeforeValidator(_is_no_flag)
"""For numbers: `true` is no 1 here."""

PlainText = Annotated[str, AfterValidator(_is_plain)]
"""Without control characters, composed (NFC), so that a name is found however it was typed."""

FileName = Annotated[str, AfterValidator(_is_path)]

Amount = Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=2), NO_FLAG]
"""Dollars and cents."""


def _wrong_at(location: tuple[str | int, ...], sentence: str) -> PydanticCustomError:
    """A broken rule between fields: says at which of them the reader should look."""
    return PydanticCustomError("broken_rule", "{sentence}", {"sentence": sentence, "at": location})


class TrainingOptions(Record):
    """What a person may set of a training; unset options take the trainer's default."""

    steps: Annotated[int, Field(ge=1, le=100_000), NO_FLAG] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1), NO_FLAG] | None = None
    rank: Annotated[int, Field(ge=1, le=256), NO_FLAG] | None = None
    trainer: str | None = None
    """A trainer's key in the registry, where a vendor has several for the base; else its first."""

    @field_validator("trainer")
    @classmethod
    def _trainer_is_known(cls, key: str | None) -> str | None:
        known = [model.key for model in load_registry().models if model.kind is ModelKind.TRAINER]
        if key is not None and key not in known:
            raise ValueError(f"{key!r} is no trainer; write one of {', '.join(known)}, or leave it out")
        return key


class VendorChoice(Record):
    """Which vendor does which kind of work, in order of preference."""

    train: tuple[str, ...]
    image: tuple[str, ...]
    video: tuple[str, ...]


class CharacterEntry(Record):
    """One character of the manifest. Paths are relative to the manifest."""

    name: PlainText
    description: PlainText = ""
    trigger_word: str = ""
    kind: CharacterKind = CharacterKind.PERSON
    base_models: tuple[str, ...] = ("flux-1-dev",)
    clips: tuple[FileName, ...] = ()
    images: tuple[FileName, ...] = ()
    references: tuple[FileName, ...] = ()
    training: TrainingOptions = TrainingOptions()
    lora: FileName = "auto"
    lora_scale: Annotated[float, Field(gt=0, le=4), NO_FLAG] = 0.8
    min_images: Annotated[int, Field(ge=1, le=100), NO_FLAG] = DEFAULT_MIN_IMAGES
    captions: CaptionMode = CaptionMode.AUTO
    rights: PlainText = ""
    budget_usd: Amount | None = None

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        if problem := name_problem(name):
            raise ValueError(f"{name!r} {problem}")
        return name

    @field_validator("trigger_word")
    @classmethod
    def _trigger_is_a_word(cls, word: str) -> str:
        if word and not TRIGGER_WORD.fullmatch(word):
            raise ValueError(f"{word!r} is no trigger word; write 6 to 32 letters, digits or _, such as KAEL_07")
        return word

    @field_validator("lora", mode="before")
    @classmethod
    def _lora_may_be_an_id(cls, lora: Any) -> Any:
        return str(lora) if isinstance(lora, int) and not isinstance(lora, bool) else lora

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

    number: Annotated[int, Field(ge=1, le=MAX_SLOTS), NO_FLAG]
    video: FileName | None = None
    prompt: PlainText | None = None
    video_model: str | None = None
    seconds: Annotated[float, Field(gt=0, le=60), NO_FLAG] | None = None
    scene_references: tuple[FileName, ...] = ()

    @field_validator("prompt")
    @classmethod
    def _prompt_says_something(cls, prompt: str | None) -> str | None:
        if prompt is not None and not prompt.strip():
            raise ValueError("is empty; say what happens in the slot")
        return prompt

    @field_validator("video_model")
    @classmethod
    def _model_makes_video(cls, key: str | None) -> str | None:
        known = [model.key for model in load_registry().video_models()]
        if key is not None and key not in known:
            raise ValueError(f"{key!r} is no video model; write one of {', '.join(known)}")
        return key

    @model_validator(mode="after")
    def _is_won_or_wanted(self) -> Self:
        if (self.video is None) == (self.prompt is None):
            raise ValueError("needs either video (a clip that already won) or prompt (a clip to render), not both")
        return self


class SeasonManifest(Record):
    """A whole season, checked. Two manifests that mean the same are equal."""

    season: str
    owner: str = "me"
    time_zone: str = "UTC"
    budget_usd: Amount
    at_limit: AtLimit = AtLimit.STOP
    vendor: VendorChoice = VendorChoice(train=("sandbox",), image=("sandbox",), video=("sandbox",))
    sandbox: bool = False
    review: bool = False
    face_still: str | None = None
    characters: tuple[CharacterEntry, ...] = ()
    slots: tuple[SlotEntry, ...] = ()

    @field_validator("season", "owner")
    @classmethod
    def _is_slug(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError(f"{value!r} is no slug; write small letters, digits and hyphens, such as neon-harbor")
        return value

    @field_validator("face_still")
    @classmethod
    def _keeps_a_face(cls, key: str | None) -> str | None:
        known = [model.key for model in load_registry().face_still_models()]
        if key is not None and key not in known:
            raise ValueError(f"{key!r} is no model that keeps a face; write one of {', '.join(known)}")
        return key

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
        for work, names in value.items():
            listed = (names,) if isinstance(names, str) else names
            if not isinstance(listed, list | tuple) or not listed:
                raise ValueError(f"{work} names no vendor; write one, or a list of them in order of preference")
            for name in listed:
                if name not in VENDORS:
                    raise ValueError(f"{name!r} is no vendor; write one of {', '.join(VENDORS)}")
            choice[work] = tuple(listed)
        return {**dict.fromkeys(("train", "image", "video"), ("sandbox",)), **choice}

    @model_validator(mode="after")
    def _characters_differ(self) -> Self:
        seen: set[str] = set()
        words: dict[str, str] = {}
        for i, character in enumerate(self.characters):
            name, word = character.name.casefold(), character.trigger_word.casefold()
            if name in seen:
                raise _wrong_at(
                    ("characters", i, "name"), f"{character.name!r} is declared twice; give each its own name"
                )
            seen.add(name)
            if word and word in words:
                raise _wrong_at(
                    ("characters", i, "trigger_word"),
                    f"{words[word]!r} and {character.name!r} share the trigger word {character.trigger_word!r}; "
                    f"give each its own, or leave it out to have one made",
                )
            words[word] = character.name
        return self

    @model_validator(mode="after")
    def _slots_make_sense(self) -> Self:
        names = [character.name for character in self.characters]
        numbers: set[int] = set()
        for i, slot in enumerate(self.slots):
            if slot.number in numbers:
                raise _wrong_at(
                    ("slots", i, "number"), f"slot {slot.number} is there twice; each slot has its own number"
                )
            numbers.add(slot.number)
            if slot.prompt and (unknown := unknown_mentions(slot.prompt, names)):
                raise _wrong_at(
                    ("slots", i, "prompt"),
                    f"names {unknown[0]!r}, who is not in characters; declared are {', '.join(names) or 'none'}",
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
    face_still: str | None = None
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
    captions: CaptionMode = CaptionMode.AUTO
    rights: str = ""

    @property
    def is_lora_wanted(self) -> bool:
        return self.lora != "none" and bool(self.base_models)
