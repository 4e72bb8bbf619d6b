"""Characters, their clips and pictures, harvested frames and training sets in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from domain.clips import Clip, Frame, StillImage
from domain.errors import BadInput
from domain.frame_rules import common_bars
from domain.looks import Bars, Harvest, LookMeasures
from domain.seasons import Character
from domain.training_sets import CuratedSet, TrainingSet
from providers.postgres.rows import Table

_CHARACTER = """SELECT id, season_id, name, description, trigger_word, kind, base_models, lora, lora_scale, min_images,
                       training, captions, rights FROM characters"""
_FRAME = """SELECT id, clip_id, at_seconds, sha256, width, height, sharpness, brightness, hash64, is_kept, reason,
                   media_type, thumbnail_sha256, shot, mark FROM frames"""
_KEEP_FRAME = """INSERT INTO frames (clip_id, at_seconds, sha256, width, height, sharpness, brightness, hash64, is_kept,
                                     reason, media_type, thumbnail_sha256, shot, mark, measures)
                 VALUES (%(clip_id)s, %(at_seconds)s, %(sha256)s, %(width)s, %(height)s, %(sharpness)s, %(brightness)s,
                         %(hash64)s, %(is_kept)s, %(reason)s, %(media_type)s, %(thumbnail_sha256)s, %(shot)s, %(mark)s,
                         %(measures)s)
                 ON CONFLICT (clip_id, at_seconds) DO UPDATE
                 SET sha256 = excluded.sha256, width = excluded.width, height = excluded.height,
                     sharpness = excluded.sharpness, brightness = excluded.brightness, hash64 = excluded.hash64,
                     is_kept = excluded.is_kept, reason = excluded.reason, media_type = excluded.media_type,
                     thumbnail_sha256 = excluded.thumbnail_sha256, shot = excluded.shot, mark = excluded.mark,
                     measures = excluded.measures"""
_LOW_64 = (1 << 64) - 1
_SET = "SELECT id, character_id, digest, manifest, warnings FROM training_sets"


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
            """SELECT character_id, role, sha256, source_name, width, height, media_type, caption
               FROM character_images WHERE character_id = %s AND role = %s ORDER BY position""",
            (character_id, role),
        )
        return [StillImage.model_validate(row) for row in rows]

    def made_here(self, sha256s: Sequence[str]) -> set[str]:
        """Which of these files this project made itself: outputs of its own jobs, reference pictures, renders."""
        rows = self._all(
            """SELECT file ->> 'sha256' AS sha256 FROM provider_jobs, jsonb_array_elements(result -> 'files') AS file
               WHERE file ->> 'sha256' = ANY(%(these)s)
               UNION SELECT sha256 FROM character_reference_images WHERE sha256 = ANY(%(these)s)
               UNION SELECT clip_sha256 FROM renders WHERE clip_sha256 = ANY(%(these)s)
               UNION SELECT still_sha256 FROM renders WHERE still_sha256 = ANY(%(these)s)""",
            {"these": list(sha256s)},
        )
        return {row["sha256"] for row in rows}

    def frames(self, clip_id: int) -> list[Frame]:
        """What was harvested from a clip, kept and dropped, in order of time; empty when it was not harvested yet."""
        rows = self._all(f"{_FRAME} WHERE clip_id = %s ORDER BY at_seconds", (clip_id,))
        return [Frame.model_validate({**row, "hash64": row["hash64"] & _LOW_64}) for row in rows]

    def bars(self, clip_id: int) -> Bars:
        """The bars that the harvest cut off every picture of a clip."""
        rows = self._all(
            "SELECT measures FROM frames WHERE clip_id = %s AND measures <> '{}' ORDER BY at_seconds", (clip_id,)
        )
        return common_bars([LookMeasures.model_validate(row["measures"]) for row in rows])

    def set_frame_picture(self, frame_id: int, sha256: str, media_type: str, width: int, height: int) -> None:
        """Give a dropped frame, which a person wants after all, its picture. Safe to repeat."""
        self._do(
            "UPDATE frames SET sha256 = %s, media_type = %s, width = %s, height = %s WHERE id = %s",
            (sha256, media_type, width, height, frame_id),
        )

    def kept_count(self, clip_id: int, rules_version: int) -> int | None:
        """How many frames a finished harvest kept; None when the clip was not harvested by these rules yet."""
        row = self._one(
            "SELECT kept_count FROM harvests WHERE clip_id = %s AND rules_version = %s", (clip_id, rules_version)
        )
        return int(row["kept_count"]) if row else None

    def keep_harvest(self, clip_id: int, rules_version: int, harvest: Harvest, frames: Sequence[Frame]) -> None:
        """Store a clip's harvest whole, in place of one by older rules. `frames` stand in the order of its looks.

        Safe to repeat. A frame of the same moment keeps its id, so that its name stays what it was.
        """
        rows = [
            {
                **frame.model_dump(exclude={"id"}),
                "hash64": _signed(frame.hash64),
                "measures": Jsonb(look.measures.model_dump()),
            }
            for frame, look in zip(frames, harvest.looks, strict=True)
        ]
        with self._database.transaction() as db:
            db.execute(
                "DELETE FROM frames WHERE clip_id = %s AND NOT at_seconds = ANY(%s)",
                (clip_id, [frame.at_seconds for frame in frames]),
            )
            db.cursor().executemany(_KEEP_FRAME, rows)
            db.execute(
                """INSERT INTO harvests (clip_id, rules_version, looked_count, kept_count, decoded_frames, frame_count)
                   VALUES (%s, %s, %s, %s, %s, %s)
                   ON CONFLICT (clip_id) DO UPDATE
                   SET rules_version = excluded.rules_version, looked_count = excluded.looked_count,
                       kept_count = excluded.kept_count, decoded_frames = excluded.decoded_frames,
                       frame_count = excluded.frame_count, harvested_at = now()""",
                (
                    clip_id,
                    rules_version,
                    len(frames),
                    sum(frame.is_kept for frame in frames),
                    harvest.decoded_frames,
                    harvest.frame_count,
                ),
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

    def keep_training_set(self, curated: CuratedSet) -> int:
        """The id of this very set, stored once per content."""
        manifest = {
            "trained": [image.model_dump(mode="json") for image in curated.trained],
            "held_out": [image.model_dump(mode="json") for image in curated.held_out],
            "left_out": [one.model_dump(mode="json") for one in curated.left_out],
            "coverage": curated.coverage.model_dump(mode="json"),
        }
        self._do(
            """INSERT INTO training_sets (character_id, digest, manifest, trained_count, held_out_count, warnings)
               VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (character_id, digest) DO NOTHING""",
            (
                curated.character_id,
                curated.digest,
                Jsonb(manifest),
                len(curated.trained),
                len(curated.held_out),
                list(curated.warnings),
            ),
        )
        set_id = self.training_set_of(curated.character_id, curated.digest)
        assert set_id is not None
        return set_id


def _signed(hash64: int) -> int:
    """64 bits as SQL's bigint has them."""
    return hash64 - (1 << 64) if hash64 >= 1 << 63 else hash64


def _training_set(row: dict[str, object]) -> TrainingSet:
    manifest = row.pop("manifest")
    assert isinstance(manifest, dict)
    return TrainingSet.model_validate({**row, **manifest})
