"""The page docs/models.md, written from the registry and the price list alone: `python -m studio.models_page`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from domain.model_rules import BaseModelEntry, LoraWire, Model, ModelKind, Unsupported
from domain.money import Price, PriceList, load_prices
from domain.registry import Registry, load_registry
from studio.models_words import FREE, KIND_HEADS, field_words, groups, limit_words, oldest_date, price_words

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"

INTRO = """\
# Every model, and what it takes

This page is written from the registry (`domain/models/*.toml`) and the price list (`domain/prices/*.toml`) by
`make models`; a test holds them together. `onmodel models` prints the same, with what was proved on this machine:
`onmodel models probe KEY` reads a vendor's live schema, says the price, asks, and buys the smallest jobs with a LoRA
and without it. No cell of this page was proved so by us: nobody has paid for a job here yet. The numbers in brackets
are the sources below; the date is that of a model's oldest fact. Prices are in US dollars; what stands behind them,
and how sure each is, tells `onmodel models KEY`.

A slot's `video_model` and a character's `training.trainer` take the keys of the first column. Where two vendors have
the same model, either key does, and the season's own vendors decide.
"""

NO_LORA_HEAD = """\
## Models that take no LoRA, and why

A character reaches these by pictures: a still made with its LoRA and set in motion, elements, or references.
"""

UNSUPPORTED_HEAD = """\
## Not to be had here, and why

Somebody would look for these. Each was looked into; the reason is the vendor's, or a fact about the model.
"""

BASES_HEAD = """\
## Base models

What a LoRA is trained on. A LoRA works only in models of its own base; a wrong one is refused before anything is sent.
"""


def write_page(registry: Registry, prices: PriceList) -> str:
    """The whole page as text, the same for the same registry. Pure."""
    sources = _Sources()
    parts = [INTRO]
    vendor = None
    for (of_vendor, kind), models in groups(registry.models).items():
        if of_vendor != vendor:
            parts.append(f"## {of_vendor}\n")
            vendor = of_vendor
        parts.append(f"### {of_vendor} {KIND_HEADS[kind]}\n\n{_table(kind, models, prices, sources)}")
    parts.append(f"{NO_LORA_HEAD}\n{_without_lora(registry.models)}")
    if registry.unsupported:
        parts.append(f"{UNSUPPORTED_HEAD}\n{_unsupported(registry.unsupported, sources)}")
    parts.append(f"{BASES_HEAD}\n{_bases(registry.base_models, registry.models)}")
    parts.append(f"## Sources\n\n{sources.listed()}")
    return "\n".join(parts)


class _Sources:
    """Who says it, numbered as they first appear on the page."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def mark(self, pairs: Iterable[tuple[str, str]]) -> str:
        numbers = sorted({self._numbers.setdefault(pair, len(self._numbers) + 1) for pair in pairs})
        return f"[{', '.join(map(str, numbers))}]"

    def listed(self) -> str:
        return _rows(("", "source", "read"), [(str(n), what, date) for (what, date), n in self._numbers.items()])


def _table(kind: ModelKind, models: list[Model], prices: PriceList, sources: _Sources) -> str:
    rows = []
    for model in models:
        marks = sources.mark((fact.source, fact.date) for fact in model.sources)
        price = prices.prices.get(model.key)
        rows.append(
            (
                f"`{model.key}`",
                model.title,
                f"`{model.endpoint}`" if model.endpoint else "",
                _lora(model),
                "; ".join(limit_words(model)),
                price_words(price) + ("" if price is None or _is_sure(price) else "\\*"),
                f"{marks} {oldest_date(model)}",
            )
        )
    lora = "trains" if kind is ModelKind.TRAINER else "LoRA"
    table = _rows(("key", "model", "endpoint", lora, "limits", "USD", "read"), rows)
    return table + ("\n\\* not confirmed by the vendor\n" if any(row[5].endswith("\\*") for row in rows) else "")


def _is_sure(price: Price) -> bool:
    """Whether the vendor itself says so; one's own machine asks nobody."""
    return price.confidence == "confirmed" or price_words(price) == FREE


def _lora(model: Model) -> str:
    if model.kind is ModelKind.TRAINER:
        return model.base_model
    if model.lora is None or not model.lora.takes:
        return "no"
    field = field_words(model.lora)
    return f"{field if model.lora.wire is LoraWire.NODES else f'`{field}`'} of {model.base_model}"


def _without_lora(models: Iterable[Model]) -> str:
    rows = [
        (f"`{model.key}`", model.lora.reason or "")
        for model in models
        if model.lora is not None and not model.lora.takes
    ]
    return _rows(("model", "why"), rows)


def _unsupported(unsupported: Iterable[Unsupported], sources: _Sources) -> str:
    rows = [
        (one.title, one.vendor, one.reason, f"{sources.mark([(one.source, one.date)])} {one.date}")
        for one in unsupported
    ]
    return _rows(("model", "at", "why not", "read"), rows)


def _bases(bases: Iterable[BaseModelEntry], models: Iterable[Model]) -> str:
    rows = []
    for base in bases:
        trainers = [m.key for m in models if m.kind is ModelKind.TRAINER and m.base_model == base.key]
        users = [m.key for m in models if m.lora is not None and m.lora.takes and m.base_model == base.key]
        missing = [reason for reason in (base.no_trainer, base.no_still_model) if reason]
        rows.append((f"`{base.key}`", base.title, _keys(trainers), _keys(users), "; ".join(missing)))
    return _rows(("base", "model", "trained by", "loaded by", "what is missing"), rows)


def _keys(keys: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys) or "–"


def _rows(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """One line, in which no stroke ends the cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(write_page(load_registry(), load_prices()), "utf-8")
