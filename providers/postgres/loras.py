"""LoRAs, their reference sets, pins and identity scores in SQL. Retraining adds a row, never changes one's weights."""

from __future__ import annotations

from decimal import Decimal

from domain.characters import LoraStatus
from domain.identity import IdentityVerdict
from domain.loras import Lora, PinnedCharacter, ReferenceImage
from domain.records import Record
from domain.seasons import Character
from providers.postgres.rows import Table, as_json

_LORA = """SELECT id, season_id, character_id, character_name, base_model, version, trainer, training_set_id,
                  training_options, trigger_word, lora_url, sha256,
                  high_noise_sha256, training_images_count, training_steps,
                  training_cost_usd, status, status_reason, job_keys, created_at FROM character_loras"""
_REFERENCE = """SELECT lora_id, character_id, sha256, image_url, prompt, image_type, is_primary, score, job_key
                FROM character_reference_images"""


class LoraTable(Table):
    """`character_loras`, `character_reference_images`, `pinned_characters`, `identity_scores`."""

    def get(self, lora_id: int) -> Lora:
        row = self._one(f"{_LORA} WHERE id = %s", (lora_id,))
        assert row is not None, lora_id
        return Lora.model_validate(row)

    def find(self, lora_id: int) -> Lora | None:
        row = self._one(f"{_LORA} WHERE id = %s", (lora_id,))
        return Lora.model_validate(row) if row else None

    def current(self, character_id: int) -> list[Lora]:
        """The newest LoRA per base model that is not archived."""
        rows = self._all(
            f"{_LORA} WHERE id IN (SELECT id FROM current_character_loras WHERE character_id = %s) ORDER BY base_model",
            (character_id,),
        )
        return [Lora.model_validate(row) for row in rows]

    def create(
        self,
        character: Character,
        base_model: str,
        *,
        trainer: str,
        training_set_id: int | None,
        images_count: int,
        created_by: str,
        sha256: str | None = None,
        lora_url: str | None = None,
    ) -> Lora:
        """The next version for this character and base, pending."""
        row = self._one(
            """INSERT INTO character_loras (season_id, character_id, character_name, base_model, version, parent,
                       trainer, training_set_id, training_options, trigger_word, training_images_count, created_by,
                       sha256, lora_url)
               SELECT %(season)s, %(character)s, %(name)s, %(base)s, coalesce(max(version), 0) + 1, max(id),
                      %(trainer)s, %(set)s, %(options)s, %(trigger)s, %(images)s, %(by)s, %(sha256)s, %(url)s
               FROM character_loras WHERE character_id = %(character)s AND base_model = %(base)s
               RETURNING id""",
            {
                "season": character.season_id,
                "character": character.id,
                "name": character.name,
                "base": base_model,
                "trainer": trainer,
                "set": training_set_id,
                "options": as_json(character.training),
                "trigger": character.trigger_word,
                "images": images_count,
                "by": created_by,
                "sha256": sha256,
                "url": lora_url,
            },
        )
        assert row is not None
        return self.get(int(row["id"]))

    def set_status(self, lora_id: int, status: LoraStatus, reason: str = "") -> None:
        self._do("UPDATE character_loras SET status = %s, status_reason = %s WHERE id = %s", (status, reason, lora_id))

    def add_job(self, lora_id: int, job_key: str, steps: int) -> None:
        """Note another attempt at training this LoRA; the same job is noted once."""
        self._do(
            """UPDATE character_loras SET job_keys = array_append(job_keys, %(key)s), training_steps = %(steps)s
               WHERE id = %(id)s AND NOT %(key)s = ANY(job_keys)""",
            {"key": job_key, "steps": steps, "id": lora_id},
        )

    def keep_weights(
        self,
        lora_id: int,
        *,
        trainer: str,
        sha256: str,
        lora_url: str,
        high_noise_sha256: str | None = None,
        high_noise_url: str | None = None,
        config_url: str | None,
        request_id: str | None,
        cost_usd: Decimal,
    ) -> None:
        """The trained file is in our store, with its second one where it has two; `trainer` is the one that made it,
        `cost_usd` the sum of all attempts."""
        self._do(
            """UPDATE character_loras SET trainer = %s, sha256 = %s, lora_url = %s, high_noise_sha256 = %s,
                      high_noise_url = %s, config_url = %s, fal_request_id = %s, training_cost_usd = %s
               WHERE id = %s""",
            (trainer, sha256, lora_url, high_noise_sha256, high_noise_url, config_url, request_id, cost_usd, lora_id),
        )

    def keep_file_report(self, lora_id: int, report: Record) -> None:
        self._do("UPDATE character_loras SET file_report = %s WHERE id = %s", (as_json(report), lora_id))

    # --- reference sets and pins ---

    def references(self, lora_id: int) -> list[ReferenceImage]:
        return [
            ReferenceImage.model_validate(row)
            for row in self._all(f"{_REFERENCE} WHERE lora_id = %s ORDER BY image_type", (lora_id,))
        ]

    def keep_references(self, lora_id: int, images: list[ReferenceImage]) -> None:
        """Replace the reference set of a LoRA whole."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM character_reference_images WHERE lora_id = %s", (lora_id,))
            db.cursor().executemany(
                """INSERT INTO character_reference_images
                       (lora_id, character_id, sha256, image_url, prompt, image_type, is_primary, score, job_key)
                   VALUES (%(lora_id)s, %(character_id)s, %(sha256)s, %(image_url)s, %(prompt)s, %(image_type)s,
                           %(is_primary)s, %(score)s, %(job_key)s)""",
                [image.model_dump() for image in images],
            )

    def pin(self, season_id: int, pin: PinnedCharacter) -> None:
        """Pin a character, replacing an earlier pin."""
        self._do(
            """INSERT INTO pinned_characters (season_id, character_id, character_name, lora_id, frontal_image_url,
                       frontal_sha256, reference_image_urls, reference_sha256s)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
               ON CONFLICT (character_id) DO UPDATE SET lora_id = excluded.lora_id,
                   character_name = excluded.character_name, frontal_image_url = excluded.frontal_image_url,
                   frontal_sha256 = excluded.frontal_sha256, reference_image_urls = excluded.reference_image_urls,
                   reference_sha256s = excluded.reference_sha256s, pinned_at = now()""",
            (
                season_id,
                pin.character_id,
                pin.character_name,
                pin.lora_id,
                pin.frontal_image_url,
                pin.frontal_sha256,
                list(pin.reference_image_urls),
                list(pin.reference_sha256s),
            ),
        )

    def pinned(self, character_id: int) -> PinnedCharacter | None:
        row = self._one(
            """SELECT character_id, character_name, lora_id, frontal_sha256, frontal_image_url, reference_sha256s,
                      reference_image_urls FROM pinned_characters WHERE character_id = %s""",
            (character_id,),
        )
        return PinnedCharacter.model_validate(row) if row else None

    # --- identity ---

    def keep_verdict(self, subject_kind: str, subject_id: int, character_id: int, verdict: IdentityVerdict) -> None:
        """The newest judgement of a LoRA (`lora`) or of a rendered clip (`render`)."""
        self._do(
            """INSERT INTO identity_scores (subject_kind, subject_id, character_id, verdict, is_passed)
               VALUES (%s, %s, %s, %s, %s)
               ON CONFLICT (subject_kind, subject_id, character_id) DO UPDATE
                   SET verdict = excluded.verdict, is_passed = excluded.is_passed, created_at = now()""",
            (subject_kind, subject_id, character_id, as_json(verdict), verdict.is_passed),
        )

    def verdict(self, subject_kind: str, subject_id: int, character_id: int) -> IdentityVerdict | None:
        row = self._one(
            "SELECT verdict FROM identity_scores WHERE subject_kind = %s AND subject_id = %s AND character_id = %s",
            (subject_kind, subject_id, character_id),
        )
        return IdentityVerdict.model_validate(row["verdict"]) if row else None
