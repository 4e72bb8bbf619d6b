"""The words of our flows' forms, and what they leave behind for people who look at the Prefect UI."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from tasks.lookups import character_table, season_table

log = logging.getLogger("onmodel.flows")

SeasonSlug = Annotated[str, Field(examples=["neon-harbor"])]
CharacterName = Annotated[str, Field(examples=["Mei Kobayashi"])]
SlotNumber = Annotated[int, Field(ge=1, le=75)]
"""Prefect shows a parameter's name as its title and takes its description from the docstring's Args."""


async def publish_character(season: str, character: str) -> None:
    """A table of what a character has learned, in the run's artifacts."""
    rows = await asyncio.to_thread(character_table, season, character)
    await _publish_table(f"character-{season}", rows, f"{character} in {season}")


async def publish_season(season: str) -> None:
    """The slots with their routes, scores and costs, and the sum, in the run's artifacts."""
    rows, headline = await asyncio.to_thread(season_table, season)
    await _publish_table(f"season-{season}", rows, f"Slots of {season}")
    await create_markdown_artifact(headline, key=f"season-{season}-summary", description=f"How {season} stands")  # type: ignore[misc]


async def _publish_table(key: str, rows: list[dict[str, str]], description: str) -> None:
    if rows:
        await create_table_artifact(rows, key=key, description=description)  # type: ignore[misc]
