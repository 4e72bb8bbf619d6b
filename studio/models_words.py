"""The matrix in words: what a model makes, whether it takes a LoRA, its limits, its price, and what was proved of it.

The table of `onmodel models` and the page docs/models.md are written with these. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from domain.model_rules import (
    DurationRule,
    LoraRule,
    LoraWire,
    Model,
    ModelKind,
    OptionRule,
    StillRule,
    TrainingRule,
    VideoRule,
)
from domain.money import Price, PriceUnit
from domain.proofs import Proof, Verdict

KIND_HEADS = {
    ModelKind.TRAINER: "trains",
    ModelKind.IMAGE: "makes stills",
    ModelKind.VIDEO: "makes clips",
    ModelKind.CAPTIONER: "describes pictures",
}
VERDICT_WORDS = {
    Verdict.WORKS: "works",
    Verdict.IGNORED: "ignored",
    Verdict.REFUSED: "refused",
    Verdict.SCHEMA_CHANGED: "changed",
    Verdict.INCONCLUSIVE: "unclear",
}
UNPROVED = "not yet"
FREE = "free"


def lora_words(model: Model) -> str:
    """`loras, of flux-1-dev`, `no`; of a trainer, what it trains."""
    if model.kind is ModelKind.TRAINER:
        return f"makes {model.base_model}"
    if model.lora is None or not model.lora.takes:
        return "no"
    return f"{field_words(model.lora)}, of {model.base_model}"


def field_words(rule: LoraRule) -> str:
    """The vendor's fields that carry a LoRA, or where it goes instead."""
    if rule.wire is LoraWire.NODES:
        return "loader node"
    fields = [rule.field, rule.high_noise_field, rule.extra_field]
    return " + ".join(field for field in fields if field)


def limit_words(model: Model) -> list[str]:
    """What bounds a request, a phrase each: lengths, sizes, steps, pictures."""
    if model.training is not None:
        return _training(model.training)
    if model.still is not None:
        return _still(model.still)
    if model.video is not None:
        return _video(model.video)
    return ["one picture"]


def price_words(price: Price | None) -> str:
    """`0.05 /s`, `0.28/6s, 0.56/10s`, `free`; the unit is what is counted."""
    if price is None:
        return "unknown"
    if price.amount_by_seconds:
        return ", ".join(f"{amount}/{seconds}s" for seconds, amount in sorted(price.amount_by_seconds.items()))
    if not price.amount_usd:
        return FREE
    amount, unit = (
        price.amount_usd,
        {
            PriceUnit.RUN_STEP: "1000 steps",
            PriceUnit.MEGAPIXEL: "MP",
            PriceUnit.STILL: "still",
            PriceUnit.MACHINE_HOUR: "h",
            PriceUnit.SECOND: "s",
            PriceUnit.VIDEO: "clip",
            PriceUnit.PICTURE: "picture",
        }[price.unit],
    )
    if price.unit is PriceUnit.RUN_STEP:
        amount *= 1000
    return f"{amount.normalize():f} /{unit}"


def oldest_date(model: Model) -> str:
    """When the oldest of a model's facts was read: what the whole entry can be believed to."""
    return min(source.date for source in model.sources)


def proof_words(model: Model, proof: Proof | None, now: datetime) -> str:
    """`works 11-20`, `not yet`, `works 08-02, old`, `of an older entry`."""
    if proof is None:
        return UNPROVED
    if not proof.counts_for(model):
        return "of an older entry"
    word = "schema" if model.kind is ModelKind.TRAINER and proof.verdict is Verdict.WORKS else ""
    said = f"{word or VERDICT_WORDS[proof.verdict]} {proof.proved_at:%y-%m-%d}"
    return f"{said}, old" if proof.is_old(now) else said


def groups(models: Iterable[Model]) -> dict[tuple[str, ModelKind], list[Model]]:
    """Models by vendor and kind, in the registry's order."""
    found: dict[tuple[str, ModelKind], list[Model]] = {}
    for model in models:
        found.setdefault((model.vendor, model.kind), []).append(model)
    order = list(ModelKind)
    vendors = list(dict.fromkeys(vendor for vendor, _ in found))
    return dict(sorted(found.items(), key=lambda item: (vendors.index(item[0][0]), order.index(item[0][1]))))


def _training(rule: TrainingRule) -> list[str]:
    words = [f"{rule.min_images}+ {rule.takes}"]
    if steps := _option("steps", rule.steps):
        words.append(steps)
    if rank := _option("rank", rule.rank):
        words.append(rank)
    if rule.program is not None:
        words.append(f"stops after {rule.program.hard_stop_seconds / 3600:g} h")
    return words


def _option(name: str, rule: OptionRule) -> str:
    if not rule.takes or rule.minimum is None or rule.maximum is None:
        return ""
    return f"{name} {rule.minimum:g}–{rule.maximum:g}"


def _still(rule: StillRule) -> list[str]:
    pixels = [width * height for width, height in rule.sizes.values()]
    small, large = (
        next(s for s in rule.sizes.values() if s[0] * s[1] == bound) for bound in (min(pixels), max(pixels))
    )
    words = [f"{small[0]}×{small[1]} to {large[0]}×{large[1]}" if small != large else f"{small[0]}×{small[1]}"]
    if rule.steps is not None:
        words.append(f"steps {rule.steps.minimum:g}–{rule.steps.maximum:g}")
    if rule.identity is not None:
        words.append(_count("face", rule.identity.minimum, rule.identity.maximum))
    return words


def _video(rule: VideoRule) -> list[str]:
    words = [duration_words(rule.duration)]
    if rule.image_field is not None:
        words.append("first frame" if not rule.image_is_optional else "first frame or none")
    if rule.elements is not None:
        words.append(f"elements of 1+{rule.elements.min_references}–{rule.elements.max_references} pictures")
    if rule.references is not None:
        words.append(_count("reference", rule.references.minimum, rule.references.maximum))
    if rule.aspect is not None:
        words.append(", ".join(rule.aspect.allowed))
    return words


def duration_words(rule: DurationRule) -> str:
    """`5, 10 s`, `17–161 frames at 16/s`, `3–10 s` where every whole second is sold."""
    if rule.seconds:
        lengths = sorted(rule.seconds)
        is_whole = lengths == [lengths[0] + step for step in range(len(lengths))] and len(lengths) > 2
        return f"{lengths[0]:g}–{lengths[-1]:g} s" if is_whole else f"{', '.join(f'{one:g}' for one in lengths)} s"
    if rule.wire == "frames":
        return f"{rule.min_frames}–{rule.max_frames} frames at {rule.frames_per_second}/s"
    return f"{rule.default:g} s"


def _count(what: str, least: int, most: int) -> str:
    return f"{most} {what}{'s' if most > 1 else ''}" if least == most else f"{least}–{most} {what}s"
