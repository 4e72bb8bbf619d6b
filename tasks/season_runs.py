"""A run of a season that is known to be at work: a row whose lock lives as long as this process.

A thread holds the lock, so that nothing of the flow waits for it, and takes it again when the database was away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from prefect.runtime import deployment, flow_run

from domain.errors import OnModelError, Unavailable
from providers.wiring import open_ports

if TYPE_CHECKING:
    from providers.wiring import Ports

log = logging.getLogger("onmodel.runs")

LOOK_SECONDS = 20.0
"""How often a run makes sure that it is still known as alive: well below the ten minutes between two passes of upkeep,
which would otherwise start a second run beside it after the database was restarted."""

START_SECONDS = 60.0

OWN_PROCESS = "PREFECT__FLOW_RUN_ID"
"""Set by Prefect's worker in the environment of a process that it starts for one run."""

GRACE_SECONDS = 2.0
"""For Prefect's last words about the run."""

TERMINATED = 128 + 15


class RunNote:
    """What a run knows of itself while it is at work; set `exit_code` when it is done."""

    def __init__(self, run_id: int) -> None:
        self.run_id = run_id
        self.exit_code = 0


@asynccontextmanager
async def at_work_on(season_id: int) -> AsyncIterator[RunNote]:
    """`known_at_work` for the Prefect run that this is called in."""
    ports = open_ports()
    run_id, deployment_id = (str(one) if one else None for one in (flow_run.id, deployment.id))
    async with known_at_work(ports, season_id, run_id, deployment_id) as note:
        yield note


@asynccontextmanager
async def known_at_work(
    ports: Ports,
    season_id: int,
    flow_run_id: str | None,
    deployment_id: str | None,
    *,
    look_seconds: float = LOOK_SECONDS,
) -> AsyncIterator[RunNote]:
    """Be known as at work on a season for as long as the block lasts; how it ended is noted at its end.

    Done, with the exit code that was set; failed where an error left the block. A run by hand that was interrupted is
    noted as such. One that Prefect started and that is killed or shut down keeps its row open: it died, and `maintain`
    starts it again, unless a person cancelled it.
    """
    keeper = _Keeper(ports, (season_id, flow_run_id, deployment_id), look_seconds)
    note = RunNote(await asyncio.to_thread(keeper.start))
    try:
        yield note
    except Exception:
        await asyncio.to_thread(keeper.stop, None, "failed")
        raise
    except BaseException:
        # Ctrl-C leaves two seconds (studio/interrupting.py), and the loop is being torn down: no thread, no await.
        when_interrupted()
        keeper.interrupt()
        raise
    else:
        await asyncio.to_thread(keeper.stop, note.exit_code, "done")


def when_interrupted() -> None:
    """What is done at once when a run is interrupted, cancelled or shut down; whatever its threads are waiting for.

    They wait for jobs, and a flow's end waits for them (Prefect 3.8.8, task_runners.py). So a run by hand is noted as
    interrupted now, and a process that Prefect's worker made for this run alone ends: the worker would kill it after
    30 s, and only then stop what was bought (runner/_process_manager.py; seen 2026-11-20).
    """
    if os.environ.get(OWN_PROCESS):
        end = threading.Timer(GRACE_SECONDS, os._exit, [TERMINATED])
        end.daemon = True
        end.start()
        return
    for keeper in _AT_WORK:
        keeper.interrupt()


class _Keeper:
    """The thread that holds the lock of one run, and looks again and again whether it still does."""

    def __init__(self, ports: Ports, of: tuple[int, str | None, str | None], look_seconds: float) -> None:
        self._ports, self._of, self._look_seconds = ports, of, look_seconds
        self._is_known, self._is_over = threading.Event(), threading.Event()
        self._run_id: int | None = None
        self._trouble: OnModelError | None = None
        self._thread = threading.Thread(target=self._keep, name="onmodel-run", daemon=True)

    def start(self) -> int:
        """The run's id, once its row is there and its lock is held."""
        self._thread.start()
        _AT_WORK.append(self)
        self._is_known.wait(START_SECONDS)
        if self._run_id is None:
            self._is_over.set()
            raise self._trouble or Unavailable(
                f"The run could not be noted in the database within {START_SECONDS:.0f} s: run this again."
            )
        return self._run_id

    def stop(self, exit_code: int | None, how: str) -> None:
        """Note how it ended, and let go. A database that is away then costs a second run, never money."""
        if how and self._run_id is not None:
            try:
                self._ports.runs.end(self._run_id, exit_code, how)
            except OnModelError as error:
                log.warning("how the run ended could not be noted: %s", error.message)
        with suppress(ValueError):
            _AT_WORK.remove(self)
        self._is_over.set()
        self._thread.join(1.0)

    def interrupt(self) -> None:
        """Let go; a run by hand is noted as interrupted, one of Prefect's stays open, to be started again."""
        self.stop(None, "" if self._of[2] else "interrupted")

    def _keep(self) -> None:
        season_id, flow_run_id, deployment_id = self._of
        try:
            with self._ports.runs.running(season_id, flow_run_id, deployment_id) as run_id:
                self._run_id = run_id
                self._is_known.set()
                self._watch(run_id)
        except OnModelError as error:
            self._trouble = error
        self._is_known.set()
        while self._run_id is not None and not self._is_over.wait(min(1.0, self._look_seconds)):
            with suppress(OnModelError), self._ports.runs.hold(self._run_id):
                self._watch(self._run_id)

    def _watch(self, run_id: int) -> None:
        """Return when the run is over or its lock is free."""
        while not self._is_over.wait(self._look_seconds):
            if not self._ports.runs.is_held(run_id):
                return


_AT_WORK: list[_Keeper] = []
"""The runs of this process, usually one."""
