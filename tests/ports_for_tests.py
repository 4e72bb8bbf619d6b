"""Ports for tests: real tables and a real store in a folder, with a clock and vendors that the test holds."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from pydantic import SecretStr

from domain.errors import NotConfigured
from domain.imports import CharacterImport, SeasonImport, SlotImport
from domain.seasons import SeasonManifest
from providers.settings import Settings
from providers.vendor_ports import Vendor
from providers.wiring import Ports, SystemClock

STARTED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class HandClock(SystemClock):
    """Stands still; sleeping moves it on at once, at least by `step_seconds`, and lets other threads run."""

    def __init__(self, now: datetime = STARTED_AT, *, step_seconds: float = 0.0) -> None:
        self._now = now
        self._step_seconds = step_seconds
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=max(seconds, self._step_seconds))
            self.slept.append(seconds)
        threading.Event().wait(0.002)


class PortsForTests(Ports):
    """The product's own ports but for clock and vendors; a vendor nobody gave is not configured."""

    def __init__(self, settings: Settings, vendors: Mapping[str, Vendor], clock: SystemClock | None = None) -> None:
        super().__init__(settings)
        self.clock = clock or HandClock()
        self._given = dict(vendors)

    def job_vendor(self, name: str) -> Vendor:
        if name not in self._given:
            raise NotConfigured(f"The test gave no vendor {name!r}.")
        return self._given[name]

    def beside(self, vendor: Vendor | None = None) -> PortsForTests:
        """Another process's view of the same database and store: its own pool and clock, perhaps another vendor."""
        vendors = self._given if vendor is None else {vendor.vendor: vendor}
        return PortsForTests(self.settings, vendors, HandClock(self.clock.now()))

    def close(self) -> None:
        if "database" in self.__dict__:
            self.database.close()


def settings_for_tests(home: Path, database_url: str) -> Settings:
    """Everything below `home`, and the given database."""
    return Settings(home=home, database_url=SecretStr(database_url), storage_url=(home / "blobs").as_uri())


def store_season(ports: Ports, slug: str, *, budget_usd: str = "60", **fields: Any) -> int:
    """A season written straight to the tables: a budget and one character, Mei, unless the fields say otherwise."""
    manifest = SeasonManifest.model_validate(
        {"season": slug, "budget_usd": budget_usd, "characters": [{"name": "Mei"}], **fields}
    ).with_trigger_words()
    return ports.seasons.store(
        SeasonImport(
            manifest=manifest,
            sha256=secrets.token_hex(32),
            is_simulated=True,
            clips=(),
            characters=tuple(
                CharacterImport(entry=entry, lora=entry.lora, clip_sha256s=(), images=())
                for entry in manifest.characters
            ),
            slots=tuple(
                SlotImport(
                    number=slot.number,
                    prompt=slot.prompt,
                    clip_sha256=None,
                    entry={**slot.model_dump(mode="json"), "scene_sha256s": []},
                    entry_sha256=f"entry-{slot.model_dump_json()}",
                )
                for slot in manifest.slots
            ),
            warnings=(),
        )
    )


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """The address of a database of its own, dropped at the end; for fixtures that outlive one test."""
    name = f"om_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
