"""What a person said of a character's pictures, in SQL: the last word on each, which overrules every rule."""

from __future__ import annotations

from domain.pictures import Decision
from providers.postgres.rows import Table


class DecisionTable(Table):
    """`picture_decisions`. Pictures are named by `domain.picture_keys`."""

    def decide(self, character_id: int, picture: str, decision: Decision, by: str) -> None:
        """File a person's word in place of an earlier one. Safe to repeat; the same word keeps its first moment."""
        self._do(
            """INSERT INTO picture_decisions (character_id, picture, decision, decided_by) VALUES (%s, %s, %s, %s)
               ON CONFLICT (character_id, picture) DO UPDATE
                   SET decision = excluded.decision, decided_by = excluded.decided_by, decided_at = now()
                   WHERE picture_decisions.decision <> excluded.decision""",
            (character_id, picture, decision.value, by),
        )

    def undecide(self, character_id: int, picture: str) -> None:
        """Leave the picture to the rules again. Safe to repeat."""
        self._do("DELETE FROM picture_decisions WHERE character_id = %s AND picture = %s", (character_id, picture))

    def decisions(self, character_id: int) -> dict[str, Decision]:
        """The last word on each picture that somebody spoke about."""
        rows = self._all(
            "SELECT picture, decision FROM picture_decisions WHERE character_id = %s ORDER BY id", (character_id,)
        )
        return {row["picture"]: Decision(row["decision"]) for row in rows}
