"""Which of the registry's models a season's own vendors offer for its work. Pure."""

from __future__ import annotations

from domain.errors import BadInput
from domain.model_rules import Model
from domain.registry import Registry
from domain.seasons import Season, TrainingOptions
from domain.vendors import Work, catalogue_of, catalogues_for, vendors_for


def still_model(registry: Registry, season: Season, base_model: str) -> Model | None:
    """What draws with a LoRA of this base, at the first vendor of the manifest that has such a model; None where none
    has."""
    return registry.still_model_for(base_model, catalogues_for(season, "image"))


def filming_model(registry: Registry, season: Season, base_model: str) -> Model | None:
    """What films with a LoRA of this base, at the first vendor of the manifest that has such a model; None where none
    has."""
    return registry.filming_model_for(base_model, catalogues_for(season, "video"))


def video_model(registry: Registry, season: Season, key: str | None) -> Model:
    """The video model of a slot at the first vendor of the manifest that has it; without a key, the default one.

    `BadInput` when none of the season's vendors has the model, or films at all.
    """
    catalogues = catalogues_for(season, "video")
    found = registry.at(key or registry.default_video_model, catalogues)
    if found is not None:
        return found
    if key is None:
        for catalogue in catalogues:
            theirs = [model for model in registry.video_models() if model.vendor == catalogue and model.video]
            with_pictures = [model for model in theirs if model.video is not None and model.video.takes != ("text",)]
            if theirs:
                return (with_pictures or theirs)[0]
        raise BadInput(f"{' and '.join(catalogues)} makes no clips here: {_films(registry)}.")
    had = ", ".join(sorted({model.vendor for model in registry.models if model.name == registry.model(key).name}))
    raise BadInput(
        f"{key} is not to be had at {' or '.join(catalogues)}, which makes this season's clips: write another "
        f"video_model, or a vendor for video that has it ({had})."
    )


def face_model(registry: Registry, season: Season) -> Model | None:
    """The model that keeps a face without a LoRA, where the manifest names one (`face_still`); None otherwise.

    `BadInput` when it is none, or none of the season's vendors has it.
    """
    if season.face_still is None:
        return None
    found = registry.at(season.face_still, catalogues_for(season, "image"))
    if found is None or found.still is None or found.still.identity is None:
        known = ", ".join(model.key for model in registry.face_still_models())
        seen = "is not to be had at this season's image vendors" if found is None else "keeps no face"
        raise BadInput(f"face_still: {season.face_still} {seen}: write one of {known}, or leave it out.")
    return found


def trainer_at(registry: Registry, vendor: str, base_model: str, options: TrainingOptions) -> Model:
    """What trains this base at a vendor: the trainer the manifest names where it is that vendor's, else its first.

    `BadInput` says why there is none.
    """
    if options.trainer is not None:
        named = registry.model(options.trainer)
        if named.vendor == catalogue_of(vendor) and named.base_model == base_model and named.training is not None:
            return named
    return registry.trainer_for(base_model, catalogue_of(vendor))


def trainer(registry: Registry, season: Season, base_model: str, options: TrainingOptions) -> Model:
    """What trains this base first; `BadInput` says why there is none."""
    return trainer_at(registry, vendors_for(season, "train")[0], base_model, options)


def vendors_with(registry: Registry, season: Season, work: Work, model: Model) -> tuple[str, ...]:
    """The season's vendors that have this very model, in order of preference."""
    return tuple(
        vendor for vendor in vendors_for(season, work) if registry.at(model.key, (catalogue_of(vendor),)) is not None
    )


def _films(registry: Registry) -> str:
    vendors = sorted({model.vendor for model in registry.video_models()})
    return f"write a vendor for video that does ({', '.join(vendors)})"
