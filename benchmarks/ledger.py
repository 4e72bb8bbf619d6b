"""How fast the door is, beside plain SQL and as its table grows: `python -m benchmarks.ledger [--quick]`.

On one PostgreSQL (the built-in one in a folder of the moment, or `--url`), batch by batch in turn: the ledger's five
transactions of a job's life (plan, claim, submitted, beat, succeed); the same rows by plain `INSERT` and `UPDATE` in
five transactions on one bare connection, triggers and all; and the whole door (`plan_job`, `submit_job`, `await_job`)
with a vendor in memory that takes and finishes everything at once. Then planning, claiming and settling in databases
that hold 100, 1,000, 10,000 and 100,000 finished jobs, one job in each in turn.

How long a commit takes is the disk's affair and the same for all, so the first table is made once more without waiting
for it. Medians count. On a busy machine trust the ratios: what is compared runs within the same second.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from domain.costs import job_cost
from domain.jobs import JobOrder, KeptFile, Operation, Stage, VendorJobIds, VendorRequest, VendorState
from domain.records import Record
from providers.postgres.embedded import ensure_server, stop_server
from providers.wiring import SystemClock
from tasks.jobs import await_job, plan_job, submit_job
from tests.acceptance.standin_vendor import StandinVendor
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season

say = partial(print, flush=True)
SIZES = (100, 1_000, 10_000, 100_000)
LEAST_SHARE = 0.33
"""The ledger's own speed, of plain SQL in the same number of transactions."""

MOST_SLOWER = 1.25
"""A step at 100,000 rows, of the same step at 100 rows: not slower, but for what a busy machine makes of it."""

FILE = KeptFile(
    role="video", sha256="f" * 64, media_type="video/mp4", file_name="clip.mp4", url="https://x.example/clip"
)
_numbers = itertools.count(1)


class Steps(Record):
    """Milliseconds of one job's steps."""

    plan_ms: float
    claim_ms: float
    settle_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; 1 where a bar of ours is missed."""
    options = _parser().parse_args(arguments)
    logging.disable(logging.WARNING)
    missed: list[str] = []
    with _server(options.url) as server_url, tempfile.TemporaryDirectory() as home:
        for is_flushed in (True, False):
            missed += _beside_plain_sql(server_url, Path(home), options.jobs, options.batches, is_flushed=is_flushed)
        missed += _as_the_table_grows(server_url, Path(home), options.jobs * 2, SIZES[:-1] if options.quick else SIZES)
    say("\nEvery bar is met." if not missed else "\nMissed:\n  " + "\n  ".join(missed))
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 rows")
    parser.add_argument("--jobs", type=int, default=100, help="jobs in a batch")
    parser.add_argument("--batches", type=int, default=5, help="of each way, in turn; the median counts")
    parser.add_argument("--url", help="a database of another server, from which a new one may be made")
    return parser


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    folder.chmod(0o711)
    home = folder / "home"
    home.mkdir(mode=0o711)
    try:
        yield ensure_server(home).url
    finally:
        stop_server(home)


# --- jobs per second ---


def _beside_plain_sql(server_url: str, home: Path, jobs: int, batches: int, *, is_flushed: bool) -> list[str]:
    with new_database(server_url) as url:
        with psycopg.connect(url, autocommit=True) as bare:
            name = sql.Identifier(bare.info.dbname)
            bare.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}").format(name, is_flushed))
        vendor = StandinVendor(states=(VendorState.DONE,))
        ports = PortsForTests(settings_for_tests(home, url), {"sandbox": vendor}, SystemClock())
        try:
            medians = _in_turn(ports, url, jobs, batches)
        finally:
            ports.close()
    how = "each commit flushed to the disk, as it is in use" if is_flushed else "no commit waits for the disk"
    say(f"\nOne process, {batches} batches of {jobs} jobs each way in turn, {how}; medians")
    say(f"  {'':16}{'ms per job':>12}{'jobs per s':>12}{'of plain SQL':>14}")
    for way, seconds in medians.items():
        share = medians["plain SQL"] / seconds
        say(f"  {way:16}{seconds * 1000:12.2f}{1 / seconds:12.0f}{share:14.2f}")
    share = medians["plain SQL"] / medians["the ledger"]
    return [] if share >= LEAST_SHARE else [f"the ledger runs at {share:.2f} of plain SQL, wanted {LEAST_SHARE}"]


def _in_turn(ports: PortsForTests, url: str, jobs: int, batches: int) -> dict[str, float]:
    """Seconds per job of each way, medians of its batches."""
    season_id = store_season(ports, "bench", budget_usd="1000000")
    with psycopg.connect(url, autocommit=True) as bare:
        bare.execute("SET search_path TO onmodel")
        ways: dict[str, Callable[[JobOrder], None]] = {
            "plain SQL": partial(_by_plain_sql, bare),
            "the ledger": partial(_by_ledger, ports),
            "the whole door": partial(_by_door, ports),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(_order(season_id))  # connections are opened and statements known before anything is timed
        for _ in range(batches):
            for name, way in ways.items():
                orders = [_order(season_id) for _ in range(jobs)]
                began = time.perf_counter()
                for order in orders:
                    way(order)
                taken[name].append((time.perf_counter() - began) / jobs)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _order(season_id: int) -> JobOrder:
    return JobOrder(
        season_id=season_id,
        slot_number=1,
        stage=Stage.VIDEO,
        operation=Operation.MAKE_VIDEO,
        api_name="kling_o1_reference",
        model_key="kling_o1_reference",
        request=VendorRequest(vendor="sandbox", endpoint="video/x", arguments={"prompt": f"shot {next(_numbers)}"}),
        estimate_usd=Decimal("0.35"),
        ceiling_usd=Decimal("0.50"),
        is_simulated=True,
    )


def _by_ledger(ports: PortsForTests, order: JobOrder) -> None:
    ledger = ports.ledger
    job = ledger.plan(order, 1)
    submission = ledger.claim(job.key, datetime.now(UTC), {})
    assert submission is not None
    ledger.submitted(job.key, VendorJobIds(request_id=job.key, status_url="s", response_url="o", cancel_url="c"))
    ledger.beat(job.key, is_running=True, progress=0.5, waited_seconds=1.0)
    ledger.succeed(job.key, (FILE,), 7, job_cost(job, Decimal("0.35"), "a shot"))


def _by_door(ports: PortsForTests, order: JobOrder) -> None:
    key = plan_job(ports, order)
    submit_job(ports, key)
    await_job(ports, key)


def _by_plain_sql(db: psycopg.Connection[Any], order: JobOrder) -> None:
    """The rows that the ledger leaves behind, by statements that ask and check nothing."""
    key, season = order.job_key(1), order.season_id
    event = "INSERT INTO provider_job_events (job_key, from_state, to_state, detail) VALUES (%s, %s, %s, %s)"
    with db.transaction():
        db.execute(
            """INSERT INTO provider_jobs (key, work_key, attempt, season_id, slot_number, stage, operation, api_name,
                   model_key, vendor, endpoint, request, estimate_usd, ceiling_usd, is_simulated)
               VALUES (%s, %s, 1, %s, 1, %s, %s, %s, %s, %s, %s, %s, %s, %s, true)""",
            (
                *(key, order.work_key, season, order.stage, order.operation, order.api_name, order.model_key),
                *(order.request.vendor, order.request.endpoint, Jsonb(order.request.arguments)),
                *(order.estimate_usd, order.ceiling_usd),
            ),
        )
        db.execute(event, (key, None, "planned", f"attempt 1, up to {order.ceiling_usd} USD"))
        db.execute(
            """INSERT INTO reservations (budget_id, job_key, amount_usd)
               SELECT id, %s, %s FROM budgets WHERE season_id = %s""",
            (key, order.ceiling_usd, season),
        )
        db.execute(
            "UPDATE budgets SET reserved_usd = reserved_usd + %s WHERE season_id = %s", (order.ceiling_usd, season)
        )
    with db.transaction():
        db.execute(
            """UPDATE provider_jobs SET state = 'submitting', heartbeat_at = now(), submitting_at = now(),
                   post_count = 1 WHERE key = %s""",
            (key,),
        )
        db.execute(event, (key, "planned", "submitting", "POST 1"))
    with db.transaction():
        db.execute(
            """UPDATE provider_jobs SET state = 'submitted', request_id = %s, status_url = 's', response_url = 'o',
                   cancel_url = 'c', submitted_at = now(), heartbeat_at = now() WHERE key = %s""",
            (key, key),
        )
        db.execute(event, (key, "submitting", "submitted", f"request {key}"))
    with db.transaction():
        db.execute(
            """UPDATE provider_jobs SET state = 'running', progress = 0.5, waited_seconds = 1, heartbeat_at = now()
               WHERE key = %s""",
            (key,),
        )
        db.execute(event, (key, "submitted", "running", ""))
    with db.transaction():
        db.execute(
            """UPDATE provider_jobs SET state = 'succeeded', result = %s, billed_usd = 0.35, finished_at = now(),
                   heartbeat_at = now() WHERE key = %s""",
            (Jsonb({"files": [FILE.model_dump()], "seed": 7, "text": None}), key),
        )
        db.execute(event, (key, "running", "succeeded", ""))
        db.execute("UPDATE reservations SET released_at = now() WHERE job_key = %s", (key,))
        db.execute(
            """UPDATE budgets SET reserved_usd = reserved_usd - %s, spent_usd = spent_usd + 0.35
               WHERE season_id = %s""",
            (order.ceiling_usd, season),
        )
        db.execute(
            """INSERT INTO job_costs (season_id, slot_number, job_key, stage, api_name, amount, forecast_usd, purpose,
                   once_key, is_simulated) VALUES (%s, 1, %s, 'video', %s, 0.35, 0.35, 'a shot', %s, true)""",
            (season, key, order.api_name, f"job:{key}"),
        )


# --- as the table grows ---


def _as_the_table_grows(server_url: str, home: Path, jobs: int, sizes: Sequence[int]) -> list[str]:
    taken: dict[int, list[Steps]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        filled = {size: stack.enter_context(_filled(server_url, home, size)) for size in sizes}
        for number in range(jobs + 10):
            for size, (ports, season_id) in filled.items():
                steps = _timed(ports, season_id)
                if number >= 10:  # the first ones open connections
                    taken[size].append(steps)
    say(f"\nMedians of {jobs} jobs at each size of the table, in turn")
    say(f"  {'rows':>10}{'plan ms':>10}{'claim ms':>10}{'settle ms':>11}")
    medians = {size: {name: _median(found, name) for name in Steps.model_fields} for size, found in taken.items()}
    for size, found in medians.items():
        say(f"  {size:10,}{found['plan_ms']:10.2f}{found['claim_ms']:10.2f}{found['settle_ms']:11.2f}")
    ratios = {name: medians[sizes[-1]][name] / medians[sizes[0]][name] for name in Steps.model_fields}
    say("  " + f"{'ratio':>10}{ratios['plan_ms']:10.2f}{ratios['claim_ms']:10.2f}{ratios['settle_ms']:11.2f}")
    return [f"{name} grows by {ratio:.2f}" for name, ratio in ratios.items() if ratio > MOST_SLOWER]


def _median(found: Sequence[Steps], name: str) -> float:
    return statistics.median(getattr(steps, name) for steps in found)


@contextmanager
def _filled(server_url: str, home: Path, size: int) -> Iterator[tuple[PortsForTests, int]]:
    with new_database(server_url) as url:
        ports = PortsForTests(settings_for_tests(home, url), {}, SystemClock())
        try:
            season_id = store_season(ports, "bench", budget_usd="1000000")
            _fill(url, season_id, size)
            yield ports, season_id
        finally:
            ports.close()


def _timed(ports: PortsForTests, season_id: int) -> Steps:
    ledger, order = ports.ledger, _order(season_id)
    began = time.perf_counter()
    key = plan_job(ports, order)
    planned = time.perf_counter()
    assert ledger.claim(key, datetime.now(UTC), {}) is not None
    claimed = time.perf_counter()
    ledger.submitted(key, VendorJobIds(request_id=key))
    entry = job_cost(ledger.get(key), Decimal("0.35"), "a shot")
    looked = time.perf_counter()
    ledger.succeed(key, (FILE,), 7, entry)
    done = time.perf_counter()
    return Steps(
        plan_ms=(planned - began) * 1000, claim_ms=(claimed - planned) * 1000, settle_ms=(done - looked) * 1000
    )


def _fill(url: str, season_id: int, size: int) -> None:
    """Finished jobs of this season, with their events, reservations and costs, until the table has `size` rows."""
    with psycopg.connect(url) as db:
        db.execute("SET LOCAL search_path TO onmodel")
        (there,) = db.execute("SELECT count(*) FROM provider_jobs").fetchone() or (0,)
        db.execute("SET LOCAL session_replication_role = replica")  # no triggers: a job may be born as finished
        db.execute(
            """INSERT INTO provider_jobs (key, work_key, attempt, season_id, slot_number, stage, operation, api_name,
                   model_key, vendor, endpoint, request, state, request_id, result, estimate_usd, ceiling_usd,
                   billed_usd, is_simulated, submitted_at, finished_at, heartbeat_at, post_count)
               SELECT md5('key' || n), md5('work' || n), 1, %(season)s, 1 + n %% 75, 'video', 'make_video', 'x', 'x',
                   'sandbox', 'video/x', jsonb_build_object('prompt', 'shot ' || n), 'succeeded', md5('request' || n),
                   '{"files": [], "seed": 7, "text": null}', 0.35, 0.5, 0.35, true, now(), now(), now(), 1
               FROM generate_series(%(from)s::bigint, %(to)s) AS n""",
            {"season": season_id, "from": there + 1, "to": size},
        )
        db.execute(
            """INSERT INTO provider_job_events (job_key, from_state, to_state)
               SELECT key, was::job_state, "to"::job_state FROM provider_jobs,
                   (VALUES (NULL, 'planned'), ('planned', 'submitting'), ('submitting', 'submitted'),
                           ('submitted', 'succeeded')) AS moves (was, "to")
               WHERE NOT EXISTS (SELECT FROM provider_job_events WHERE job_key = key)"""
        )
        db.execute(
            """INSERT INTO reservations (budget_id, job_key, amount_usd, released_at)
               SELECT budgets.id, key, 0.5, now() FROM provider_jobs JOIN budgets USING (season_id)
               WHERE NOT EXISTS (SELECT FROM reservations WHERE job_key = key)"""
        )
        db.execute(
            """INSERT INTO job_costs (season_id, slot_number, job_key, stage, api_name, amount, purpose, once_key,
                   is_simulated)
               SELECT season_id, slot_number, key, stage, api_name, 0.35, 'x', 'job:' || key, true FROM provider_jobs
               ON CONFLICT (once_key) DO NOTHING"""
        )
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("VACUUM ANALYZE")


if __name__ == "__main__":
    sys.exit(main())
