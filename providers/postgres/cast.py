"""Characters, their clips and pictures, harvested frames and training sets in SQL."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from domain.clips import Clip, Frame, StillImage
from domain.errors import BadInput
from domain.seasons import Character
from domain.training_sets import TrainingImage, TrainingSet
from providers.postgres.rows import Table

_CHARACTER = """SELECT id, season_id, name, description, trigger_word, kind, base_models, lora, lora_scale, min_images,
                       training FROM characters"""
_SET = "SELECT id, character_id, digest, zip_sha256, manifest, warnings FROM training_sets"


class CastTable(Table):
    """`characters` and what they are learned from."""

    def of_season(self, season_id: int) -> list[Character]:
        """The characters of the manifest as it stands, in its order."""
        rows = self._all(
            f"""{_CHARACTER} WHERE season_id = %s AND is_current
                ORDER BY (SELECT position FROM seasons, jsonb_array_elements(manifest -> 'characters')
                              WITH ORDINALITY AS entries (entry, position)
                          WHERE seasons.id = characters.season_id AND entry ->> 'name' = characters.name), id""",
            (season_id,),
        )
        return [Character.model_validate(row) for row in rows]

    def get(self, character_id: int) -> Character:
        row = self._one(f"{_CHARACTER} WHERE id = %s", (character_id,))
        assert row is not None, character_id
        return Character.model_validate(row)

    def named(self, season_id: int, name: str) -> Character:
        """`BadInput` naming the cast when nobody is called so (case does not matter)."""
        cast = self.of_season(season_id)
        for character in cast:
            if character.name.casefold() == name.casefold():
                return character
        names = ", ".join(character.name for character in cast)
        raise BadInput(f"No character of this season is called {name!r}; its cast: {names or 'none'}.")

    def clips(self, character_id: int) -> list[Clip]:
        """The winning clips a character is learned from, in the manifest's order."""
        rows = self._all(
            """SELECT clips.id, clips.season_id, sha256, source_name, duration_seconds, width, height,
                      frames_per_second, has_audio, last_frame_url
               FROM clips JOIN character_clips ON clip_id = clips.id WHERE character_id = %s ORDER BY position""",
            (character_id,),
        )
        return [Clip.model_validate(row) for row in rows]

    def stills(self, character_id: int, role: str) -> list[StillImage]:
        """Pictures a person gave, by role: training or reference."""
        rows = self._all(
            """SELECT character_id, role, sha256, source_name, width, height, media_type
               FROM character_images WHERE character_id = %s AND role = %s ORDER BY position""",
            (character_id, role),
        )
        return [StillImage.model_validate(row) for row in rows]

    def frames(self, clip_id: int) -> list[Frame]:
        """What was harvested from a clip, kept and dropped, in order of time; empty when it was not harvested yet."""
        rows = self._all(
            """SELECT clip_id, at_seconds, sha256, width, height, sharpness, brightness, hash64, is_kept, reason
               FROM frames WHERE clip_id = %s ORDER BY at_seconds""",
            (clip_id,),
        )
        return [Frame.model_validate(row) for row in rows]

    def keep_frames(self, frames: list[Frame]) -> None:
        """Store a clip's harvest whole; repeating it changes nothing."""
        with self._database.transaction() as db:
            db.cursor().executemany(
                """INSERT INTO frames (clip_id, at_seconds, sha256, width, height, sharpness, brightness, hash64,
                                       is_kept, reason)
                   VALUES (%(clip_id)s, %(at_seconds)s, %(sha256)s, %(width)s, %(height)s, %(sharpness)s,
                           %(brightness)s, %(hash64)s, %(is_kept)s, %(reason)s)
                   ON CONFLICT (clip_id, at_seconds) DO NOTHING""",
                [frame.model_dump() for frame in frames],
            )

    def training_set(self, training_set_id: int) -> TrainingSet:
        row = self._one(f"{_SET} WHERE id = %s", (training_set_id,))
        assert row is not None, training_set_id
        return _training_set(row)

    def latest_training_set(self, character_id: int) -> TrainingSet | None:
        row = self._one(f"{_SET} WHERE character_id = %s ORDER BY id DESC LIMIT 1", (character_id,))
        return _training_set(row) if row else None

    def training_set_of(self, character_id: int, digest: str) -> int | None:
        """The id of the set made of this very material, if there is one."""
        row = self._one("SELECT id FROM training_sets WHERE character_id = %s AND digest = %s", (character_id, digest))
        return int(row["id"]) if row else None

    def keep_training_set(
        self,
        character_id: int,
        digest: str,
        zip_sha256: str,
        trained: tuple[TrainingImage, ...],
        held_out: tuple[TrainingImage, ...],
        warnings: tuple[str, ...],
    ) -> int:
        """The id of this very set, stored once per content."""
        manifest = {
            "trained": [image.model_dump() for image in trained],
            "held_out": [image.model_dump() for image in held_out],
        }
        self._do(
            """INSERT INTO training_sets (character_id, digest, zip_sha256, manifest, trained_count, held_out_count,
                                          warnings)
               VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (character_id, digest) DO NOTHING""",
            (character_id, digest, zip_sha256, Jsonb(manifest), len(trained), len(held_out), list(warnings)),
        )
        set_id = self.training_set_of(character_id, digest)
        assert set_id is not None
        return set_id


def _training_set(row: dict[str, object]) -> TrainingSet:
    manifest = row.pop("manifest")
    assert isinstance(manifest, dict)
    return TrainingSet.model_validate({**row, "trained": manifest["trained"], "held_out": manifest["held_out"]})
