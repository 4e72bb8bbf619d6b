"""The one shape of a record: frozen, typed, and closed to fields nobody declared."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Immutable value with equality; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
