"""The models OnModel can buy from, read once from `domain/models/*.toml`: what each takes and who says so.

Facts only: turning an order into a vendor's request is the vendor adapter's work, prices live in `money`, and what was
proved of a model by a paid probe in `domain/proofs.py`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from domain.errors import BadInput
from domain.model_rules import BaseModelEntry, FactSource, Model, ModelKind, Unsupported
from domain.records import Record


class Registry(Record):
    """Every model and base model."""

    models: tuple[Model, ...]
    base_models: tuple[BaseModelEntry, ...]
    unsupported: tuple[Unsupported, ...] = ()
    default_video_model: str

    def model(self, key: str) -> Model:
        """The model with this key; `BadInput` names the nearest keys when there is none."""
        by_key = {model.key: model for model in self.models}
        if key in by_key:
            return by_key[key]
        reason = next((f" ({one.title}: {one.reason})" for one in self.unsupported if one.key == key), "")
        raise BadInput(f"There is no model {key!r}{reason}: {_did_you_mean(key, list(by_key))}.")

    def base_model(self, key: str) -> BaseModelEntry:
        """The base model with this key; `BadInput` names the nearest keys when there is none."""
        by_key = {base.key: base for base in self.base_models}
        if key in by_key:
            return by_key[key]
        raise BadInput(f"There is no base model {key!r}: {_did_you_mean(key, list(by_key))}.")

    def at(self, key: str, vendors: Sequence[str]) -> Model | None:
        """The model of this key, or the same model at the first of these catalogues that has it; None when none has."""
        wanted = self.model(key)
        for vendor in vendors:
            if wanted.vendor == vendor:
                return wanted
            for model in self.models:
                if (model.name, model.vendor, model.kind) == (wanted.name, vendor, wanted.kind):
                    return model
        return None

    def by_endpoint(self, vendor: str, endpoint: str) -> Model | None:
        """The model behind a vendor's endpoint, if it is one of ours."""
        return next((model for model in self.models if (model.vendor, model.endpoint) == (vendor, endpoint)), None)

    def trainers(self, base: str, vendor: str) -> tuple[Model, ...]:
        """The vendor's trainers for a base model, in the registry's order."""
        found = (model for model in self.models if model.kind is ModelKind.TRAINER)
        return tuple(model for model in found if (model.base_model, model.vendor) == (base, vendor))

    def trainer_for(self, base: str, vendor: str = "fal") -> Model:
        """The vendor's first trainer for a base model; `BadInput` says why there is none."""
        found = self.trainers(base, vendor)
        if found:
            return found[0]
        reason = self.base_model(base).no_trainer or f"{vendor} has no trainer for it here"
        theirs = [model for model in self.models if model.kind is ModelKind.TRAINER and model.vendor == vendor]
        trainable = sorted({model.base_model for model in theirs})
        choose = f"choose one of {', '.join(trainable)}" if trainable else f"{vendor} trains nothing here"
        raise BadInput(f"No LoRA can be trained on {base} at {vendor}: {reason}; {choose}.")

    def still_model_for(self, base: str, vendors: Sequence[str] = ("fal",)) -> Model | None:
        """A still model of the first of these catalogues that loads LoRAs of this base, or None
        (`base_model(base).no_still_model` says why)."""
        return self._loading(ModelKind.IMAGE, base, vendors)

    def filming_model_for(self, base: str, vendors: Sequence[str] = ("fal",)) -> Model | None:
        """A video model of the first of these catalogues that loads LoRAs of this base, or None."""
        return self._loading(ModelKind.VIDEO, base, vendors)

    def captioner_for(self, vendor: str = "fal") -> Model:
        """The vendor's model that describes pictures; `BadInput` when it has none here."""
        for model in self.models:
            if (model.kind, model.vendor) == (ModelKind.CAPTIONER, vendor):
                return model
        raise BadInput(f"{vendor} has no captioner here: write captions: auto, fixed or own in the manifest.")

    def video_models(self) -> tuple[Model, ...]:
        """Every model that makes clips, in the registry's order."""
        return tuple(model for model in self.models if model.kind is ModelKind.VIDEO)

    def face_still_models(self) -> tuple[Model, ...]:
        """Every model that draws somebody by pictures of the face, without a LoRA."""
        return tuple(model for model in self.models if model.still is not None and model.still.identity is not None)

    def _loading(self, kind: ModelKind, base: str, vendors: Sequence[str]) -> Model | None:
        for vendor in vendors:
            for model in self.models:
                is_theirs = (model.kind, model.base_model, model.vendor) == (kind, base, vendor)
                if is_theirs and model.lora is not None and model.lora.takes:
                    return model
        return None


@cache
def load_registry() -> Registry:
    """The registry of `domain/models/*.toml`, read at the first call; `common.toml` first, then the vendors by name."""
    folder = Path(__file__).with_name("models")
    files = sorted(folder.glob("*.toml"), key=lambda path: (path.stem != "common", path.stem != "fal", path.stem))
    return parse_registry(*(path.read_text("utf-8") for path in files))


def parse_registry(*texts: str) -> Registry:
    """A registry from TOML texts, whose tables add up; a `ValueError` says what is wrong with them, a key that stands
    in two of them included."""
    tables: dict[str, dict[str, Any]] = {"source": {}, "model": {}, "base_model": {}, "unsupported": {}}
    default = ""
    for text in texts:
        given = tomllib.loads(text)
        default = given.pop("default_video_model", default)
        for name, entries in given.items():
            if name not in tables or (twice := tables[name].keys() & entries.keys()):
                raise ValueError(f"the table {name!r} is unknown" if name not in tables else f"{name} twice: {twice}")
            tables[name].update(entries)
    sources = tables["source"]
    return Registry(
        models=tuple(_parse_model(key, entry, sources) for key, entry in tables["model"].items()),
        base_models=tuple(BaseModelEntry(key=key, **entry) for key, entry in tables["base_model"].items()),
        unsupported=tuple(_parse_unsupported(key, entry, sources) for key, entry in tables["unsupported"].items()),
        default_video_model=default,
    )


def _parse_model(key: str, entry: dict[str, Any], sources: dict[str, Any]) -> Model:
    cited = tuple(
        FactSource(fact=fact, source=sources[name]["what"], date=sources[name]["date"])
        for fact, name in entry["sources"].items()
    )
    return Model.model_validate({**entry, "key": key, "sources": cited})


def _parse_unsupported(key: str, entry: dict[str, Any], sources: dict[str, Any]) -> Unsupported:
    source = sources[entry["source"]]
    return Unsupported.model_validate({**entry, "key": key, "source": source["what"], "date": source["date"]})


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}" if near else f"choose one of {', '.join(known)}"
