"""`onmodel models`: the matrix as tables, one for each vendor and kind of work, and one model whole."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from domain.errors import BadInput
from domain.model_rules import Model
from domain.money import load_prices
from domain.proofs import Proof
from domain.vendors import catalogue_of
from providers.wiring import open_ports
from studio.models_words import (
    KIND_HEADS,
    groups,
    limit_words,
    lora_words,
    oldest_date,
    price_words,
    proof_words,
)
from studio.telling import print_json, print_table, say
from tasks.matrix import disproved

if TYPE_CHECKING:
    from domain.model_rules import Unsupported
    from domain.registry import Registry
    from providers.wiring import Ports

WIDTHS = (24, 16, 15, 8, 9)
"""Columns of the table: with two blanks between them 80."""

Proofs = dict[tuple[str, str], Proof]


def show_models(key: str | None, *, vendor: str | None, base: str | None, as_json: bool) -> int:
    """The whole matrix, a part of it, or one model. Exit 0; 2 for a key, vendor or base that is none.

    Opens the database for what was proved; asks nobody else.
    """
    ports = open_ports()
    if key is not None:
        return _show_one(ports, key, vendor, as_json=as_json)
    models = _chosen(ports, vendor, base)
    proofs = _proofs(ports, vendor)
    unsupported = _unsupported(ports.registry, vendor) if base is None else []
    if as_json:
        print_json(
            {
                "models": [_document(model, proofs) for model in models],
                "unsupported": [one.model_dump(mode="json") for one in unsupported],
            }
        )
        return 0
    now = ports.clock.now()
    sources = _Sources()
    for (of_vendor, kind), members in groups(models).items():
        rows = [line for model in members for line in _rows(model, proofs, sources, now)]
        heads = ["model", "LoRA", "limits", "USD", "proved"]
        print_table(f"{of_vendor} {KIND_HEADS[kind]}", heads, rows)
        say()
    _tell_unsupported(unsupported)
    sources.tell()
    say("One of them whole, with its reasons: onmodel models KEY. To prove one: onmodel models probe KEY")
    return 0


class _Sources:
    """Who says it, numbered as they first appear."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def marks(self, model: Model) -> str:
        """`[1,3] 2026-09` for a model's sources, with the date of the oldest."""
        pairs = dict.fromkeys((source.source, source.date) for source in model.sources)
        numbers = sorted(self._known.setdefault(pair, len(self._known) + 1) for pair in pairs)
        return f"[{','.join(map(str, numbers))}] {oldest_date(model)}"

    def tell(self) -> None:
        say("Sources, and when they were read:")
        for (source, date), number in self._known.items():
            say(f"[{number}] {date}: {source}", hang=4)
        say()


def _rows(model: Model, proofs: Proofs, sources: _Sources, now: datetime) -> list[list[str]]:
    """One model as lines of the table: every cell broken to its column, a blank line's worth below."""
    price = load_prices().prices.get(model.key)
    cells = [
        f"{model.key} {sources.marks(model)}",
        lora_words(model),
        "; ".join(limit_words(model)),
        price_words(price),
        proof_words(model, _proof_of(model, proofs), now),
    ]
    columns = [broken(cell, width) for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(len(column) for column in columns)
    return [[column[line] if line < len(column) else "" for column in columns] for line in range(height)]


def broken(text: str, width: int) -> list[str]:
    """Lines of at most `width`; a key that is longer goes on after one of its `_`."""
    words: list[str] = []
    for word in text.split():
        while len(word) > width and (end := word.rfind("_", 0, width)) > 0:
            words.append(word[: end + 1])
            word = word[end + 1 :]
        words.append(word)
    return textwrap.wrap(" ".join(words), width, break_on_hyphens=False) or [""]


def _tell_unsupported(unsupported: Sequence[Unsupported]) -> None:
    if not unsupported:
        return
    say("Not to be had here, and why:")
    for one in unsupported:
        say(f"{one.key} ({one.vendor}): {one.reason}. {one.source}, {one.date}", hang=2)
    say()


def _show_one(ports: Ports, key: str, vendor: str | None, *, as_json: bool) -> int:
    unsupported = next((one for one in ports.registry.unsupported if one.key == key), None)
    known = {model.key for model in ports.registry.models}
    if unsupported is not None and key not in known:
        if as_json:
            print_json({"unsupported": unsupported.model_dump(mode="json")})
        else:
            _tell_unsupported([unsupported])
        return 0
    model = ports.registry.model(key)
    proofs = _proofs(ports, vendor)
    if as_json:
        print_json({"model": _document(model, proofs)})
        return 0
    for head, words in _facts(ports, model, proofs):
        say(f"{head + ':' if head else '':11}{words}", hang=11)
    return 0


def _facts(ports: Ports, model: Model, proofs: Proofs) -> list[tuple[str, str]]:
    price = load_prices().prices.get(model.key)
    facts = [
        ("Model", f"{model.key}, {model.title}"),
        ("At", f"{model.vendor}, {model.endpoint or model.template or 'a program of its own'}"),
        ("Kind", f"{KIND_HEADS[model.kind]}; base {model.base_model}"),
        ("Also at", ", ".join(_twins(ports, model)) or "no other vendor here"),
        ("LoRA", _lora_fact(model)),
        ("Limits", "; ".join(limit_words(model))),
    ]
    if model.prompt_max_chars is not None:
        facts.append(("Prompt", f"{model.prompt_max_chars} characters at most"))
    facts += [(f"No {name}", reason) for name, reason in _missing_options(model)]
    if model.fixed:
        facts.append(("Always", ", ".join(f"{name} = {value}" for name, value in model.fixed.items())))
    facts.append(("Price", price_words(price) + (f" USD ({price.confidence})" if price is not None else "")))
    if price is not None:
        facts += [("", f"{price.source}, {price.date}")]
        facts += [("", price.note)] if price.note else []
    mine = [proof for (key, _), proof in proofs.items() if key == model.key]
    for proof in mine:
        when = f"{proof.proved_at:%Y-%m-%d %H:%M} UTC, {proof.cost_usd:.2f} USD"
        state = proof_words(model, proof, ports.clock.now())
        facts.append(("Proved", f"at {proof.vendor}: {state} ({when}): {proof.detail}"))
        if proof.counts_for(model) and (against := disproved(model, proof)):
            facts.append(("", against))
    if not mine:
        facts.append(
            ("Proved", f"not yet; nobody asked. onmodel models probe {model.key} does, and says the price first")
        )
    said: dict[tuple[str, str], list[str]] = {}
    for fact in model.sources:
        said.setdefault((fact.source, fact.date), []).append(fact.fact)
    facts += [("Source", f"{', '.join(names)}: {source}, {date}") for (source, date), names in said.items()]
    return facts


def _lora_fact(model: Model) -> str:
    rule = model.lora
    if rule is None:
        return lora_words(model)
    if not rule.takes:
        return f"takes none: {rule.reason}"
    most = "any number" if rule.max_count is None else f"{rule.max_count} at most"
    return f"{lora_words(model)}; strength {rule.min_scale:g}–{rule.max_scale:g}, {most}"


def _missing_options(model: Model) -> list[tuple[str, str]]:
    if model.training is None:
        return []
    options = {"rank": model.training.rank, "rate": model.training.learning_rate, "steps": model.training.steps}
    return [(name, rule.reason) for name, rule in options.items() if not rule.takes and rule.reason]


def _twins(ports: Ports, model: Model) -> list[str]:
    return [
        f"{other.vendor} ({other.key})"
        for other in ports.registry.models
        if other.name == model.name and other.key != model.key and other.kind is model.kind
    ]


def _chosen(ports: Ports, vendor: str | None, base: str | None) -> list[Model]:
    if base is not None:
        ports.registry.base_model(base)
    known = sorted({model.vendor for model in ports.registry.models})
    if vendor is not None and _played(vendor) not in known:
        raise BadInput(f"There are no models of {vendor!r}: choose one of {', '.join(known)}.")
    return [
        model
        for model in ports.registry.models
        if (vendor is None or model.vendor == _played(vendor)) and base in (None, model.base_model)
    ]


def _unsupported(registry: Registry, vendor: str | None) -> list[Unsupported]:
    return [one for one in registry.unsupported if vendor is None or one.vendor == _played(vendor)]


def _played(vendor: str | None) -> str | None:
    """Whose models a stand-in has."""
    return catalogue_of(vendor) if vendor is not None else None


def _proofs(ports: Ports, vendor: str | None) -> Proofs:
    """The newest proofs by model and vendor; of a stand-in only when it is asked for by name."""
    return {
        (proof.model_key, proof.vendor): proof
        for proof in ports.proofs.all_newest()
        if not proof.is_simulated or proof.vendor == vendor
    }


def _proof_of(model: Model, proofs: Proofs) -> Proof | None:
    found = [proof for (key, _), proof in proofs.items() if key == model.key]
    return max(found, key=lambda proof: proof.proved_at) if found else None


def _document(model: Model, proofs: Proofs) -> dict[str, Any]:
    price = load_prices().prices.get(model.key)
    mine = [proof for (key, _), proof in proofs.items() if key == model.key]
    return {
        **model.model_dump(mode="json"),
        "price": price.model_dump(mode="json") if price is not None else None,
        "proofs": [
            {**proof.model_dump(mode="json"), "counts": proof.counts_for(model), "overrules": disproved(model, proof)}
            for proof in mine
        ],
    }
