"""Which route a slot takes to its characters: the table of the first issue, as pure rules.

    LoRA of the character              video model                       route
    ---------------------------------  --------------------------------  ---------------------------------------------
    any, character pinned              takes elements                    elements
    ready                              takes LoRAs of its base           direct
    ready                              takes none, or another base       preprocessed (a LoRA still, then the video)
    ready, no still model for its base takes none of it                  originals, with the reason
    ready, file missing or damaged     any                               originals, an error
    pending, training, validating,
    failed, archived                   any                               originals, a warning
    none, or switched off              any                               originals

Where the manifest names a model that keeps a face without a LoRA (`face_still`), and the video model takes pictures, a
still of that face goes before the originals in every one of these rows.

LoRA status is read once, at the start of a render, into `CharacterAtRender`. Each character of a slot has its own
route; one that falls back never takes another's away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from domain.characters import LoraStatus
from domain.jobs import BlobRef
from domain.records import Record


class Route(StrEnum):
    """How a character's look reaches the video model; equal to the SQL type `route`."""

    ELEMENTS = "elements"
    DIRECT = "direct"
    PREPROCESSED = "preprocessed"
    FACE_STILL = "face_still"
    ORIGINALS = "originals"


class LoraAtRender(Record):
    """A character's LoRA as it stood when the render began. `file` is None when it is missing or damaged.

    The trigger word is the one it was trained with, whatever the manifest says by now.
    """

    lora_id: int
    base_model: str
    trigger_word: str
    status: LoraStatus
    file: BlobRef | None
    high_noise: BlobRef | None = None
    still_model: str | None


class CharacterAtRender(Record):
    """Everything a route can use, read once at the start of a render."""

    character_id: int
    name: str
    description: str
    lora_scale: float
    is_lora_wanted: bool
    loras: tuple[LoraAtRender, ...] = ()
    pinned_frontal: BlobRef | None = None
    pinned_references: tuple[BlobRef, ...] = ()
    originals: tuple[BlobRef, ...] = ()
    face_model: str | None = None
    """The manifest's model that keeps a face without a LoRA (`face_still`), or None."""

    @property
    def has_face(self) -> bool:
        """Whether a still of this face can be drawn without a LoRA: a model is named, and there is a picture."""
        return self.face_model is not None and bool(self.originals)


class VideoModelTakes(Record):
    """What of a video model decides the route; filled from the registry."""

    key: str
    has_elements: bool
    has_image: bool
    has_references: bool = False
    lora_base: str | None
    max_loras: int | None = None
    """How many LoRAs at once; None where the vendor states no limit."""
    is_lora_required: bool = False
    """It makes nothing without a LoRA, whatever pictures it is given (LTX-2.3 and MiniMax H3 with LoRAs)."""

    @property
    def has_pictures(self) -> bool:
        return self.has_elements or self.has_image or self.has_references


class CharacterRoute(Record):
    """One character's way into one slot. `severity` is '', 'warning' or 'error' for the log."""

    character_id: int
    name: str
    route: Route
    lora_id: int | None = None
    reason: str
    severity: str = ""


RETRIES: dict[Route, int] = {
    Route.ELEMENTS: 3,
    Route.DIRECT: 1,
    Route.PREPROCESSED: 3,
    Route.FACE_STILL: 3,
    Route.ORIGINALS: 1,
}
"""Retries of a route's own job after its first try, before the next route (the table's last column)."""

STILL_BACKOFF_SECONDS = (2.0, 4.0, 8.0)


def choose_route(character: CharacterAtRender, model: VideoModelTakes) -> CharacterRoute:
    """The first route of one character; never refuses."""

    def goes(route: Route, reason: str, lora: LoraAtRender | None = None, severity: str = "") -> CharacterRoute:
        return CharacterRoute(
            character_id=character.character_id,
            name=character.name,
            route=route,
            lora_id=lora.lora_id if lora else None,
            reason=reason,
            severity=severity,
        )

    def without_lora(reason: str, lora: LoraAtRender | None = None, severity: str = "") -> CharacterRoute:
        if character.has_face and model.has_pictures:
            return goes(Route.FACE_STILL, f"{reason}: a still with {character.face_model}", lora, severity)
        return goes(Route.ORIGINALS, reason, lora, severity)

    if model.has_elements and character.pinned_frontal is not None:
        return goes(Route.ELEMENTS, f"pinned, and {model.key} takes elements")
    if not character.is_lora_wanted:
        return without_lora("its LoRA is switched off")
    if not character.loras:
        return without_lora("it has no LoRA")
    ready = [lora for lora in character.loras if lora.status is LoraStatus.READY]
    if not ready:
        states = ", ".join(sorted({lora.status.value for lora in character.loras}))
        return without_lora(f"its LoRA is {states}, not ready", severity="warning")
    usable = [lora for lora in ready if lora.file is not None]
    if not usable:
        return without_lora("its LoRA file is missing or damaged", ready[0], "error")
    for lora in usable:
        if model.lora_base == lora.base_model:
            return goes(Route.DIRECT, f"{model.key} takes LoRAs of {lora.base_model}", lora)
    base = usable[0].base_model
    if not model.has_pictures:
        return goes(Route.ORIGINALS, f"{model.key} takes neither a LoRA of {base} nor pictures", usable[0])
    for lora in usable:
        if lora.still_model:
            return goes(Route.PREPROCESSED, f"{model.key} takes no LoRA of {lora.base_model}: a still with it", lora)
    return without_lora(f"no still model draws with a LoRA of {base}, and {model.key} does not take it", usable[0])


def choose_routes(cast: Sequence[CharacterAtRender], model: VideoModelTakes) -> tuple[CharacterRoute, ...]:
    """The first route of every character: LoRAs go in directly up to the model's limit, the others as if it took none.

    Who stands first in the prompt goes first; one that finds no room takes nothing from those before it.
    """
    routes: list[CharacterRoute] = []
    for character in cast:
        route = choose_route(character, model)
        direct = sum(one.route is Route.DIRECT for one in routes)
        if route.route is Route.DIRECT and model.max_loras is not None and direct >= model.max_loras:
            route = choose_route(character, model.model_copy(update={"lora_base": None}))
            reason = f"{model.key} takes {model.max_loras} LoRAs at once, and others come first"
            route = route.model_copy(update={"reason": reason, "severity": "warning"})
        routes.append(route)
    return tuple(routes)


def can_show(model: VideoModelTakes, routes: Sequence[CharacterRoute]) -> bool:
    """Whether this model can show anybody of the cast: by a picture, or by a LoRA that goes straight in; and whether it
    films at all, where it needs a LoRA to."""
    is_direct = any(route.route is Route.DIRECT for route in routes)
    if model.is_lora_required:
        return is_direct
    return not routes or model.has_pictures or is_direct


def next_route(failed: CharacterRoute, character: CharacterAtRender, why: str) -> CharacterRoute | None:
    """The route after one that failed for good, or None after the last: direct → preprocessed → face still → originals.

    Elements go straight to the original references. A direct LoRA without a still model skips preprocessing, whoever
    has no face model (or no picture) skips the face still.
    """
    after_lora = Route.FACE_STILL if character.has_face else Route.ORIGINALS
    match failed.route:
        case Route.DIRECT:
            lora = next((one for one in character.loras if one.lora_id == failed.lora_id), None)
            route = Route.PREPROCESSED if lora is not None and lora.still_model else after_lora
        case Route.PREPROCESSED:
            route = after_lora
        case Route.ELEMENTS | Route.FACE_STILL:
            route = Route.ORIGINALS
        case Route.ORIGINALS:
            return None
    return failed.model_copy(
        update={"route": route, "reason": f"{failed.route.value} failed: {why}", "severity": "warning"}
    )


def group_by_base(
    routes: Sequence[CharacterRoute], cast: Sequence[CharacterAtRender], max_loras_of: Mapping[str, int] | None = None
) -> list[list[CharacterRoute]]:
    """The preprocessed characters, those whose LoRAs share a base together: each group becomes one still.

    A base in `max_loras_of` has a still model that takes only so many LoRAs: a larger group becomes several stills.
    """
    base_of = {lora.lora_id: lora.base_model for character in cast for lora in character.loras}
    by_base: dict[str, list[CharacterRoute]] = {}
    for route in routes:
        if route.route is Route.PREPROCESSED and route.lora_id is not None:
            by_base.setdefault(base_of[route.lora_id], []).append(route)
    groups = []
    for base, members in by_base.items():
        most = (max_loras_of or {}).get(base, len(members))
        groups += [members[i : i + most] for i in range(0, len(members), most)]
    return groups
