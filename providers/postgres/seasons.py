"""Seasons, their slots and their winning clips in SQL; importing a manifest is one transaction."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.clips import Clip
from domain.errors import BadInput
from domain.imports import CharacterImport, ClipImport, SeasonImport, SlotImport
from domain.proofs import PROBE_SEASONS
from domain.renders import Slot
from domain.seasons import LIFTED_LIMIT_USD, Season, SeasonManifest
from providers.postgres.budgets import begin_character
from providers.postgres.rows import Table, as_json, one

_SEASON = """SELECT seasons.id, slug, owners.name AS owner, time_zone, vendor, is_simulated, review,
                    manifest ->> 'face_still' AS face_still, manifest_sha256, finished_sha256, video_sha256,
                    video_seconds
             FROM seasons JOIN owners ON owners.id = seasons.owner_id"""


class SeasonTable(Table):
    """`seasons`, `slots`, `clips` and who belongs to whom."""

    def by_slug(self, slug: str) -> Season:
        """`BadInput` naming the seasons there are when this is none of them."""
        row = self._one(f"{_SEASON} WHERE slug = %s", (slug,))
        if row is None:
            rows = self._all(
                "SELECT slug FROM seasons WHERE slug <> ALL(%s) ORDER BY slug", (list(PROBE_SEASONS.values()),)
            )
            known = ", ".join(row["slug"] for row in rows)
            raise BadInput(
                f"There is no season {slug!r}; known are: {known or 'none yet'}. "
                f"Import one with: onmodel season import season.yaml"
            )
        return Season.model_validate(row)

    def get(self, season_id: int) -> Season:
        row = self._one(f"{_SEASON} WHERE seasons.id = %s", (season_id,))
        assert row is not None, season_id
        return Season.model_validate(row)

    def manifest(self, season_id: int) -> SeasonManifest:
        """The manifest as it was last imported."""
        row = self._one("SELECT manifest FROM seasons WHERE id = %s", (season_id,))
        assert row is not None, season_id
        return SeasonManifest.model_validate(row["manifest"])

    def slots(self, season_id: int) -> list[Slot]:
        """Every slot, in order."""
        rows = self._all(
            """SELECT id, season_id, number, prompt, winning_clip_id, entry, entry_sha256, plan
               FROM slots WHERE season_id = %s AND (prompt IS NOT NULL OR winning_clip_id IS NOT NULL)
               ORDER BY number""",
            (season_id,),
        )
        return [Slot.model_validate(row) for row in rows]

    def slot(self, season_id: int, number: int) -> Slot:
        """`BadInput` naming the slots there are when this is none of them."""
        slots = {slot.number: slot for slot in self.slots(season_id)}
        if number not in slots:
            known = ", ".join(str(known) for known in slots) or "none"
            raise BadInput(f"Slot {number} is not in this season; it has {known}.")
        return slots[number]

    def clip(self, clip_id: int) -> Clip:
        row = self._one(
            """SELECT id, season_id, sha256, source_name, duration_seconds, width, height, frames_per_second,
                      has_audio, last_frame_url FROM clips WHERE id = %s""",
            (clip_id,),
        )
        assert row is not None, clip_id
        return Clip.model_validate(row)

    def set_last_frame(self, clip_id: int, url: str) -> None:
        self._do("UPDATE clips SET last_frame_url = %s WHERE id = %s", (url, clip_id))

    def notices(self, season_id: int, kind: str, about: str = "") -> list[str]:
        """What was told of a season, of one kind and about one cause, oldest first."""
        rows = self._all(
            """SELECT message FROM notifications WHERE season_id = %s AND kind = %s AND starts_with(once_key, %s)
               ORDER BY id""",
            (season_id, kind, about),
        )
        return [str(row["message"]) for row in rows]

    def finish(
        self, season_id: int, *, video_sha256: str | None, video_seconds: float | None, is_complete: bool
    ) -> None:
        """Note the assembled video, and whether anything was left to do for this manifest."""
        self._do(
            """UPDATE seasons SET video_sha256 = %s, video_seconds = %s, finished_at = now(),
                      finished_sha256 = CASE WHEN %s THEN manifest_sha256 END
               WHERE id = %s""",
            (video_sha256, video_seconds, is_complete, season_id),
        )

    def store(self, season: SeasonImport) -> int:
        """Write a checked manifest whole, or not at all; the season's id. Safe to repeat.

        What a person set of a budget by command stays until the manifest itself says something else than before.
        `BadInput` when a season that was rehearsed on the sandbox is to become real, or the other way round: its LoRAs,
        clips and costs would count as what they are not.
        """
        manifest = season.manifest
        with self._database.transaction() as db:
            _refuse_change_of_reality(db, season)
            before = one(db, "SELECT manifest FROM seasons WHERE slug = %s FOR UPDATE", (manifest.season,))
            owner_id = _id(
                db,
                """INSERT INTO owners (name) VALUES (%s)
                   ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id""",
                (manifest.owner,),
            )
            project_id = _id(
                db,
                """INSERT INTO projects (owner_id, name) VALUES (%s, %s)
                   ON CONFLICT (owner_id, name) DO UPDATE SET name = excluded.name RETURNING id""",
                (owner_id, manifest.season),
            )
            season_id = _id(
                db,
                """INSERT INTO seasons (slug, owner_id, project_id, time_zone, review, vendor, is_simulated, manifest,
                                        manifest_sha256)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                   ON CONFLICT (slug) DO UPDATE SET owner_id = excluded.owner_id, project_id = excluded.project_id,
                       time_zone = excluded.time_zone, review = excluded.review, vendor = excluded.vendor,
                       is_simulated = excluded.is_simulated, manifest = excluded.manifest,
                       manifest_sha256 = excluded.manifest_sha256, updated_at = now()
                   RETURNING id""",
                (
                    manifest.season,
                    owner_id,
                    project_id,
                    manifest.time_zone,
                    manifest.review,
                    as_json(manifest.vendor),
                    season.is_simulated,
                    as_json(manifest),
                    season.sha256,
                ),
            )
            _store_season_budget(db, season_id, before["manifest"] if before else None, manifest)
            clip_ids = {clip.sha256: _store_clip(db, season_id, clip) for clip in season.clips}
            db.execute("UPDATE characters SET is_current = false WHERE season_id = %s", (season_id,))
            for character in season.characters:
                _store_character(db, season_id, project_id, character, clip_ids)
            _store_character_budgets(db, season_id, before["manifest"] if before else None, manifest)
            _store_slots(db, season_id, season.slots, clip_ids)
        return season_id


def _refuse_change_of_reality(db: Connection[Any], season: SeasonImport) -> None:
    slug = season.manifest.season
    known = one(db, "SELECT is_simulated FROM seasons WHERE slug = %s", (slug,))
    if known is None or known["is_simulated"] == season.is_simulated:
        return
    was, wanted = ("a rehearsal on the sandbox", "real") if known["is_simulated"] else ("real", "a rehearsal")
    raise BadInput(
        f"The season {slug!r} was {was} so far and its LoRAs, clips and costs stay so: give the one that is {wanted} a "
        f"slug of its own, such as season: {slug}-{'live' if known['is_simulated'] else 'rehearsal'}."
    )


def _store_season_budget(
    db: Connection[Any], season_id: int, before: dict[str, Any] | None, manifest: SeasonManifest
) -> None:
    """The manifest's own word counts when it is new; what was set by command since then is otherwise kept."""
    db.execute(
        """INSERT INTO budgets (season_id, limit_usd, at_limit) VALUES (%s, %s, %s)
           ON CONFLICT (season_id) DO NOTHING""",
        (season_id, manifest.budget_usd, manifest.at_limit),
    )
    if before is None:
        return
    if Decimal(str(before["budget_usd"])) != manifest.budget_usd:
        _set_limit(db, "season_id", season_id, manifest.budget_usd)
    if before.get("at_limit", "stop") != manifest.at_limit:
        db.execute("UPDATE budgets SET at_limit = %s WHERE season_id = %s", (manifest.at_limit, season_id))


def _store_character_budgets(
    db: Connection[Any], season_id: int, before: dict[str, Any] | None, manifest: SeasonManifest
) -> None:
    """Budgets that the manifest gave, changed or took back since it was last imported; others stay as they are."""
    had = _character_budgets(before) if before else {}
    has = {entry.name: entry.budget_usd for entry in manifest.characters if entry.budget_usd is not None}
    rows = db.execute("SELECT name, id FROM characters WHERE season_id = %s", (season_id,)).fetchall()
    ids: dict[str, int] = {str(name): int(character_id) for name, character_id in rows}
    for name in sorted(had.keys() | has.keys(), key=lambda name: ids[name]):
        limit_usd = has.get(name)
        if limit_usd is None:
            _lift(db, ids[name])
        elif had.get(name) != limit_usd:
            begin_character(db, ids[name], limit_usd)
            _set_limit(db, "character_id", ids[name], limit_usd)


def _character_budgets(manifest: dict[str, Any]) -> dict[str, Decimal]:
    """What a stored manifest gave each character; older ones knew no such budgets."""
    given = ((entry["name"], entry.get("budget_usd")) for entry in manifest["characters"])
    return {name: Decimal(str(limit_usd)) for name, limit_usd in given if limit_usd is not None}


def _set_limit(db: Connection[Any], column: str, of: int, limit_usd: Decimal) -> None:
    db.execute(
        f"""UPDATE budgets SET limit_usd = %(limit)s, overrun_usd = greatest(spent_usd - %(limit)s, 0),
            warned_percent = 0 WHERE {column} = %(id)s""",
        {"limit": limit_usd, "id": of},
    )


def _lift(db: Connection[Any], character_id: int) -> None:
    """A budget nothing was ever reserved against goes; any other keeps its history and is limited no more."""
    db.execute(
        """DELETE FROM budgets WHERE character_id = %s
           AND NOT EXISTS (SELECT 1 FROM reservations WHERE budget_id = budgets.id)""",
        (character_id,),
    )
    _set_limit(db, "character_id", character_id, LIFTED_LIMIT_USD)


def _id(db: Connection[Any], query: str, values: tuple[Any, ...]) -> int:
    row = one(db, query, values)
    assert row is not None
    return int(row["id"])


def _store_clip(db: Connection[Any], season_id: int, clip: ClipImport) -> int:
    facts = clip.facts
    return _id(
        db,
        """INSERT INTO clips (season_id, sha256, source_name, duration_seconds, width, height, frames_per_second,
                              video_codec, has_audio, size_bytes)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (season_id, sha256) DO UPDATE SET source_name = excluded.source_name RETURNING id""",
        (
            season_id,
            clip.sha256,
            clip.source_name,
            facts.duration_seconds,
            facts.width,
            facts.height,
            facts.frames_per_second,
            facts.video_codec,
            facts.has_audio,
            facts.size_bytes,
        ),
    )


def _store_character(
    db: Connection[Any], season_id: int, project_id: int, character: CharacterImport, clip_ids: dict[str, int]
) -> None:
    entry = character.entry
    character_id = _id(
        db,
        """INSERT INTO characters (season_id, project_id, name, description, trigger_word, kind, base_models, lora,
                                   lora_scale, min_images, training, captions, rights)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (season_id, name) DO UPDATE SET description = excluded.description,
               trigger_word = excluded.trigger_word, kind = excluded.kind, base_models = excluded.base_models,
               lora = excluded.lora, lora_scale = excluded.lora_scale, min_images = excluded.min_images,
               training = excluded.training, captions = excluded.captions, rights = excluded.rights, is_current = true
           RETURNING id""",
        (
            season_id,
            project_id,
            entry.name,
            entry.description,
            entry.trigger_word,
            entry.kind,
            list(entry.base_models),
            character.lora,
            entry.lora_scale,
            entry.min_images,
            as_json(entry.training),
            entry.captions,
            entry.rights,
        ),
    )
    db.execute("DELETE FROM character_clips WHERE character_id = %s", (character_id,))
    for position, sha256 in enumerate(dict.fromkeys(character.clip_sha256s)):
        db.execute(
            "INSERT INTO character_clips (character_id, clip_id, position) VALUES (%s, %s, %s)",
            (character_id, clip_ids[sha256], position),
        )
    db.execute("DELETE FROM character_images WHERE character_id = %s", (character_id,))
    for position, image in enumerate(character.images):
        db.execute(
            """INSERT INTO character_images (character_id, role, position, sha256, source_name, width, height,
                                             media_type, caption)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                character_id,
                image.role,
                position,
                image.sha256,
                image.source_name,
                image.width,
                image.height,
                image.media_type,
                image.caption,
            ),
        )


def _store_slots(db: Connection[Any], season_id: int, slots: tuple[SlotImport, ...], clip_ids: dict[str, int]) -> None:
    for slot in slots:
        winning = clip_ids[slot.clip_sha256] if slot.clip_sha256 else None
        db.execute(
            """INSERT INTO slots (season_id, number, prompt, winning_clip_id, entry, entry_sha256)
               VALUES (%s, %s, %s, %s, %s, %s)
               ON CONFLICT (season_id, number) DO UPDATE SET prompt = excluded.prompt,
                   winning_clip_id = excluded.winning_clip_id, entry = excluded.entry,
                   entry_sha256 = excluded.entry_sha256,
                   plan = CASE WHEN slots.entry_sha256 = excluded.entry_sha256 THEN slots.plan END""",
            (season_id, slot.number, slot.prompt, winning, Jsonb(slot.entry), slot.entry_sha256),
        )
    kept = [slot.number for slot in slots]
    # A slot that left the manifest keeps its renders and costs; it only stops being part of the season.
    db.execute(
        """DELETE FROM slots WHERE season_id = %s AND NOT number = ANY(%s)
           AND NOT EXISTS (SELECT 1 FROM renders WHERE renders.slot_id = slots.id)""",
        (season_id, kept),
    )
    db.execute(
        "UPDATE slots SET prompt = NULL, winning_clip_id = NULL WHERE season_id = %s AND NOT number = ANY(%s)",
        (season_id, kept),
    )
