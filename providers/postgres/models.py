"""The model and price registries as the table `ai_models`, upserted whenever the code's registry is newer."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from domain.money import load_prices
from domain.registry import Registry
from providers.postgres.database import Database
from providers.postgres.rows import as_json


def keep_models(database: Database, registry: Registry) -> None:
    """Write every model with its price; safe to repeat. Models that left the registry stay, for old rows' sake."""
    prices = load_prices().prices
    with database.transaction() as db:
        for model in registry.models:
            price = prices.get(model.key)
            db.execute(
                """INSERT INTO ai_models (key, name, type, model_path, vendor, base_model, takes_lora, lora_field,
                                          no_lora_reason, facts, price)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                   ON CONFLICT (key) DO UPDATE SET name = excluded.name, type = excluded.type,
                       model_path = excluded.model_path, vendor = excluded.vendor, base_model = excluded.base_model,
                       takes_lora = excluded.takes_lora, lora_field = excluded.lora_field,
                       no_lora_reason = excluded.no_lora_reason, facts = excluded.facts, price = excluded.price,
                       updated_at = now()
                   WHERE (ai_models.facts, ai_models.price) IS DISTINCT FROM (excluded.facts, excluded.price)""",
                (
                    model.key,
                    model.title,
                    model.kind,
                    model.endpoint,
                    model.vendor,
                    model.base_model,
                    bool(model.lora and model.lora.takes),
                    model.lora.field if model.lora else None,
                    model.lora.reason if model.lora else None,
                    as_json(model),
                    as_json(price) if price else Jsonb(None),
                ),
            )
