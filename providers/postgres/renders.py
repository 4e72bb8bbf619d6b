"""Slot plans, renders and notifications in SQL."""

from __future__ import annotations

from domain.applications import CharacterRoute
from domain.renders import Render, RenderState, SlotPlan
from providers.postgres.rows import Table, as_json

_RENDER = """SELECT renders.id, renders.season_id, slot_id, slots.number AS slot_number, state, video_model, routes,
                    still_sha256, clip_sha256, job_key, notes, reason, exit_code, created_at, finished_at
             FROM renders JOIN slots ON slots.id = slot_id"""


class RenderTable(Table):
    """`renders`, `slots.plan`, `notifications`."""

    def plan(self, slot_id: int, plan: SlotPlan) -> SlotPlan:
        """Store a slot's plan at its first render; the stored one when there is one already."""
        row = self._one(
            "UPDATE slots SET plan = coalesce(plan, %s) WHERE id = %s RETURNING plan", (as_json(plan), slot_id)
        )
        assert row is not None, slot_id
        return SlotPlan.model_validate(row["plan"])

    def replan(self, slot_id: int, plan: SlotPlan) -> None:
        """Replace a slot's plan on a person's wish; a render that is not done begins anew with it."""
        with self._database.transaction() as db:
            db.execute("UPDATE slots SET plan = %s WHERE id = %s", (as_json(plan), slot_id))
            db.execute("UPDATE renders SET routes = '[]' WHERE slot_id = %s AND state <> 'done'", (slot_id,))

    def start(self, season_id: int, slot_id: int, entry_sha256: str, video_model: str) -> Render:
        """The render of this slot as its entry stands; a failed or waiting one is taken up again."""
        row = self._one(
            """INSERT INTO renders (season_id, slot_id, entry_sha256, video_model) VALUES (%s, %s, %s, %s)
               ON CONFLICT (slot_id, entry_sha256) DO UPDATE
                   SET state = CASE WHEN renders.state = 'done' THEN renders.state ELSE 'running' END
               RETURNING id""",
            (season_id, slot_id, entry_sha256, video_model),
        )
        assert row is not None
        return self.get(int(row["id"]))

    def get(self, render_id: int) -> Render:
        row = self._one(f"{_RENDER} WHERE renders.id = %s", (render_id,))
        assert row is not None, render_id
        return Render.model_validate(row)

    def of_slot(self, slot_id: int, entry_sha256: str) -> Render | None:
        row = self._one(f"{_RENDER} WHERE slot_id = %s AND renders.entry_sha256 = %s", (slot_id, entry_sha256))
        return Render.model_validate(row) if row else None

    def set_routes(self, render_id: int, routes: tuple[CharacterRoute, ...], video_model: str) -> None:
        """The routes as they stand now, after any fall back."""
        self._do(
            "UPDATE renders SET routes = %s, video_model = %s WHERE id = %s", (as_json(routes), video_model, render_id)
        )

    def note(self, render_id: int, note: str) -> None:
        """Add a note for the report; the same note is kept once."""
        self._do(
            "UPDATE renders SET notes = array_append(notes, %(note)s) WHERE id = %(id)s AND NOT %(note)s = ANY(notes)",
            {"note": note, "id": render_id},
        )

    def keep_still(self, render_id: int, sha256: str) -> None:
        self._do("UPDATE renders SET still_sha256 = %s WHERE id = %s", (sha256, render_id))

    def keep_clip(self, render_id: int, *, sha256: str, url: str, job_key: str) -> None:
        self._do(
            "UPDATE renders SET clip_sha256 = %s, clip_url = %s, job_key = %s WHERE id = %s",
            (sha256, url, job_key, render_id),
        )

    def end(self, render_id: int, state: RenderState, reason: str = "", exit_code: int = 0) -> None:
        self._do(
            "UPDATE renders SET state = %s, reason = %s, exit_code = %s, finished_at = now() WHERE id = %s",
            (state, reason, exit_code, render_id),
        )

    def notify(self, season_id: int, kind: str, message: str, once_key: str) -> None:
        """Leave a message for a person; one per cause."""
        self._do(
            """INSERT INTO notifications (season_id, kind, message, once_key) VALUES (%s, %s, %s, %s)
               ON CONFLICT (once_key) DO NOTHING""",
            (season_id, kind, message, once_key),
        )
