"""How flows run tasks: one named function, so that slots really run side by side.

A sync task called straight from an async flow would block its event loop; submitted, and awaited in a thread, it
does not (prefect.md section 0, architecture.md "How Prefect is used").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.context import SyncClientContext

from domain.errors import JobFailed, OnModelError, Rejected, Retryable
from tasks.jobs import await_job_task, move_job_task, plan_again_task, submit_job_task, wait_before_retry
from tasks.season_runs import when_interrupted

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("onmodel.flows")

WAITING_THREADS = 64


@cache
def _waiters() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="onmodel-wait")


@contextmanager
def one_client() -> Iterator[None]:
    """One client of Prefect's API for all tasks and flows started inside, instead of two for each task.

    A client reads the certificates and opens a connection when it is made: 50 ms of the CPU per task (Prefect 3.8.8,
    benchmarks/demo_time.py, 2026-11-20). httpx lets threads share it.
    """
    with SyncClientContext.get_or_create():
        yield


async def in_thread(task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Submit a sync task and await its result without blocking the flow's other work."""
    future: Any = task.submit(*args, **kwargs)
    try:
        result: R = await asyncio.get_running_loop().run_in_executor(_waiters(), future.result)
    except asyncio.CancelledError:
        when_interrupted()  # here, because Prefect now waits for the task's thread before anything above is told
        raise
    return result


async def buy_all(
    keys: Sequence[str], *, max_attempts: int = 1, backoff_seconds: Sequence[float] = ()
) -> list[str | OnModelError]:
    """Take several planned jobs to their ends side by side: for each the key that succeeded, or its error.

    An error carries the key of its last attempt as `job_key`. Errors that are not ours are raised.
    """

    async def one(key: str) -> str | OnModelError:
        try:
            return await buy(key, max_attempts=max_attempts, backoff_seconds=backoff_seconds)
        except OnModelError as error:
            error.job_key = error.job_key or key
            return error

    return list(await asyncio.gather(*(one(key) for key in keys)))


async def buy(key: str, *, max_attempts: int = 1, backoff_seconds: Sequence[float] = ()) -> str:
    """Take a planned job to its end; the key that succeeded. A failed one is tried anew, up to `max_attempts` in all.

    A new attempt is a new job, planned only after the last is known dead. A refused request is never repeated. A job
    whose vendor is down, and which definitely does not have it, moves to the next vendor of the manifest.
    """
    tries = 0
    while True:
        try:
            key = await _submit(key)
            await in_thread(await_job_task, key)
        except Rejected:
            raise
        except JobFailed as failure:
            following = await in_thread(plan_again_task, key, max_attempts)
            if following is None:
                raise
            wait = backoff_seconds[min(tries, len(backoff_seconds) - 1)] if backoff_seconds else 0.0
            log.warning("%s; trying again in %.0f s", failure.message, wait)
            await asyncio.get_running_loop().run_in_executor(_waiters(), wait_before_retry, wait)
            tries += 1
            key = following
        else:
            return key


async def _submit(key: str) -> str:
    """Send a job, to the next vendor where its own is down; the key that a vendor took."""
    while True:
        try:
            return await in_thread(submit_job_task, key)
        except Retryable:
            moved = await in_thread(move_job_task, key)
            if moved is None:
                raise
            key = moved
