"""Dropping what nobody needs, on real tables: weights, files nothing refers to, leftovers; what is unsure is kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.characters import LoraStatus
from domain.loras import PinnedCharacter
from domain.upkeep import LORA_KEPT_FOR
from tasks.dropping import drop_leftovers
from tasks.maintaining import tidy
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import store_season
from tests.postgres.door_orders import slugs
from tests.postgres.upkeep_ports import (
    MONTH,
    OLD,
    QUEUED,
    YOUNG,
    Make,
    Upkeep,
    died_before_its_answer,
    make,
    opened,
    sent,
    stored,
    tables,
)

__all__ = ["make", "opened", "tables"]


def test_a_file_that_nothing_refers_to_is_dropped_after_its_time_and_a_young_one_is_kept(make: Make) -> None:
    ports = make()
    forgotten, young = stored(ports, "forgotten", age=OLD), stored(ports, "young", age=YOUNG)
    would = drop_leftovers(ports, is_dry_run=True)
    assert "1 stored files (0.0 MB)" in would.did[0]
    assert ports.blobs.has(forgotten)
    assert forgotten[:12] in drop_leftovers(ports, is_dry_run=False).did[0]
    assert (ports.blobs.has(forgotten), ports.blobs.has(young)) == (False, True)
    assert drop_leftovers(ports, is_dry_run=False).did == ()


def test_nothing_is_dropped_from_a_store_that_another_database_uses_too(make: Make) -> None:
    ports = make()
    forgotten = stored(ports, "perhaps the other's", age=OLD)
    ports.blobs.share("ffffffff")
    (line,) = drop_leftovers(ports, is_dry_run=False).did
    assert "another database uses the store too: ffffffff" in line
    assert ports.blobs.has(forgotten)
    ports.blobs.delete(forgotten)
    (Path(ports.settings.storage_url.removeprefix("file://")) / "users" / "ffffffff").unlink()


def test_a_file_that_is_put_again_is_kept(make: Make) -> None:
    ports = make()
    sha256 = stored(ports, "wanted after all", age=OLD)
    at = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(ports.blobs.local_path(sha256), (at, at))
    before = ports.blobs.stored_at(sha256)
    ports.blobs.put_bytes(b"wanted after all", "text/plain")
    after = ports.blobs.stored_at(sha256)
    assert before is not None
    assert after is not None
    assert after - before > timedelta(hours=23)
    ports.blobs.delete(sha256)


def test_a_file_older_than_the_database_is_kept_whoever_refers_to_it(make: Make) -> None:
    ports = make()
    sha256 = stored(ports, "from before", age=MONTH + timedelta(days=1))
    assert drop_leftovers(ports, is_dry_run=False).did == ()
    assert ports.blobs.has(sha256)


def test_a_digest_anywhere_in_any_table_keeps_its_file_also_in_a_table_nobody_knows_yet(make: Make) -> None:
    ports = make()
    texts = ("in text", "in a list", "in JSON within JSON", "in an address", "in bytes", "beside another")
    kept = [stored(ports, text, age=OLD) for text in texts]
    ports.do("CREATE TABLE onmodel.of_a_later_version (a text, b text[], c jsonb, d varchar(500), e bytea, f text)")
    try:
        with ports.database.transaction() as db:
            db.execute(
                "INSERT INTO of_a_later_version VALUES (%s, %s, %s::jsonb, %s, %s, %s)",
                (
                    kept[0],
                    ["x", kept[1].upper()],
                    f'{{"a": [{{"b": "{{\\"sha\\": \\"{kept[2]}\\"}}"}}]}}',
                    f"file:///blobs/{kept[3]}.png",
                    bytes.fromhex(kept[4]),
                    f"ab{kept[5]}{kept[0]}",
                ),
            )
        assert drop_leftovers(ports, is_dry_run=False).did == ()
        assert all(ports.blobs.has(sha256) for sha256 in kept)
    finally:
        ports.do("DROP TABLE onmodel.of_a_later_version")
    assert "6 stored files" in drop_leftovers(ports, is_dry_run=False).did[0]


def test_when_a_table_cannot_be_read_nothing_is_dropped(make: Make) -> None:
    ports = make()
    forgotten = stored(ports, "not to be judged", age=OLD)
    ports.do("CREATE VIEW onmodel.broken_source AS SELECT 1 / (random() * 0)::int AS a")
    ports.do("CREATE MATERIALIZED VIEW onmodel.unreadable AS SELECT * FROM onmodel.broken_source WITH NO DATA")
    try:
        report = tidy(ports, is_dry_run=False)
        assert report.steps[4].problems
        assert report.exit_code == 5
        assert ports.blobs.has(forgotten)
    finally:
        ports.do("DROP MATERIALIZED VIEW onmodel.unreadable")
        ports.do("DROP VIEW onmodel.broken_source")
    assert "1 stored files" in drop_leftovers(ports, is_dry_run=False).did[0]


def lora_of(ports: Upkeep, status: LoraStatus, *, days: float, text: str) -> tuple[int, str]:
    """A LoRA of a new season with weights in the store, whose last sign of life is so many days ago."""
    season_id = store_season(ports, next(slugs))
    character = ports.cast.named(season_id, "Mei")
    sha256 = ports.blobs.put_bytes(text.encode(), "application/octet-stream")
    lora = ports.loras.create(
        character, "flux-1-dev", trainer="given", training_set_id=None, images_count=0, created_by="test",
        sha256=sha256, lora_url=ports.blobs.url(sha256),
    )  # fmt: skip
    ports.loras.set_status(lora.id, status, "test")
    with ports.database.transaction() as db:
        ago = timedelta(days=days)
        db.execute("UPDATE character_loras SET created_at = now() - %s WHERE id = %s", (ago, lora.id))
    return lora.id, sha256


TERM = LORA_KEPT_FOR.days


@pytest.mark.parametrize(
    ("status", "days", "is_dropped"),
    [
        (LoraStatus.FAILED, TERM + 0.1, True),
        (LoraStatus.ARCHIVED, TERM + 0.1, True),
        (LoraStatus.FAILED, TERM - 0.1, False),
        (LoraStatus.READY, TERM * 4, False),
        (LoraStatus.VALIDATING, TERM * 4, False),
    ],
)
def test_the_weights_of_a_lora_that_came_to_nothing_go_after_their_time_and_its_row_stays(
    make: Make, status: LoraStatus, days: float, is_dropped: bool
) -> None:
    ports = make()
    lora_id, sha256 = lora_of(ports, status, days=days, text=f"weights {status} {days}")
    drop_leftovers(ports, is_dry_run=True)
    assert ports.blobs.has(sha256)
    report = drop_leftovers(ports, is_dry_run=False)
    assert ports.blobs.has(sha256) is not is_dropped
    assert any(f"LoRA {lora_id} (Mei" in line for line in report.did) is is_dropped
    assert ports.loras.get(lora_id).sha256 == sha256
    assert drop_leftovers(ports, is_dry_run=False).did == ()


def test_weights_that_something_uses_are_kept(make: Make) -> None:
    ports = make()
    pinned, pinned_sha256 = lora_of(ports, LoraStatus.ARCHIVED, days=200, text="pinned")
    lora = ports.loras.get(pinned)
    pin = PinnedCharacter(
        character_id=lora.character_id, character_name="Mei", lora_id=pinned, frontal_sha256="", frontal_image_url="",
        reference_sha256s=(), reference_image_urls=(),
    )  # fmt: skip
    ports.loras.pin(lora.season_id, pin)
    rendered, rendered_sha256 = lora_of(ports, LoraStatus.ARCHIVED, days=200, text="rendered with")
    season_id = ports.loras.get(rendered).season_id
    with ports.database.transaction() as db:
        slot = db.execute(
            "INSERT INTO slots (season_id, number, entry, entry_sha256) VALUES (%s, 1, '{}', 'e') RETURNING id",
            (season_id,),
        ).fetchone()
        assert slot is not None
        db.execute(
            """INSERT INTO renders (season_id, slot_id, entry_sha256, video_model, routes)
               VALUES (%s, %s, 'e', 'wan', jsonb_build_array(jsonb_build_object('lora_id', %s::bigint)))""",
            (season_id, slot[0], rendered),
        )
    _, twin_sha256 = lora_of(ports, LoraStatus.READY, days=1, text="the same file")
    lora_of(ports, LoraStatus.FAILED, days=200, text="the same file")
    assert drop_leftovers(ports, is_dry_run=False).did == ()
    assert all(ports.blobs.has(sha256) for sha256 in (pinned_sha256, rendered_sha256, twin_sha256))


def test_leftovers_of_killed_processes_go_after_a_day_and_an_id_that_is_still_needed_stays(make: Make) -> None:
    ports = make(StandinVendor(states=(QUEUED,)))
    notes = ports.settings.home / "accepted"
    notes.mkdir(exist_ok=True)
    done, needed = sent(ports), died_before_its_answer(ports)
    scratch = ports.scratch()
    (scratch / "old-folder").mkdir()
    (scratch / "young-folder").mkdir()
    files = [scratch / "old", scratch / "old-folder" / "inside", notes / f"{done}.json", notes / f"{needed}.json"]
    young = scratch / "young-folder" / "inside"
    for path in (*files, young):
        path.write_text("{}")
    age(scratch / "young-folder", ports, hours=25)
    age(young, ports, hours=23)
    for path in (*files, scratch / "old-folder"):
        age(path, ports, hours=25)
    report = drop_leftovers(ports, is_dry_run=False)
    assert report.did == ("3 leftovers of processes that were killed, removed.",)
    assert [path.exists() for path in files] == [False, False, False, True]
    assert young.exists()
    assert needed in report.waits[0]
    young.unlink()
    files[3].unlink()


def age(path: Path, ports: Upkeep, *, hours: float) -> None:
    at = (ports.clock.now() - timedelta(hours=hours)).timestamp()
    os.utime(path, (at, at))
