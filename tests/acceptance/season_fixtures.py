"""The acceptance tests' fixtures: one home for the session, homes of one test alone, and a season that was run."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from providers.postgres.embedded import ensure_server
from providers.wiring import open_ports
from studio.prefect_setup import prefect_for_a_run
from tests.acceptance.season_art import draw_art, train_by_hand
from tests.acceptance.season_homes import Entry, Harbor, Home, ImpatientClock, Studio
from tests.media_samples import make_clip
from tests.postgres_fixtures import open_folder


@pytest.fixture(scope="session")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn stills."""
    folder = tmp_path_factory.mktemp("acceptance") / "art"
    draw_art(folder)
    return folder


@pytest.fixture(scope="session")
def prefect_url() -> Iterator[str]:
    """One Prefect server for every run of the session, in this process and in those it starts; heartbeats off."""
    folder = open_folder()
    with contextlib.ExitStack() as stack:
        # Only Prefect itself is to know of it: other tests of the session start servers of their own.
        with _environment({"PREFECT_HOME": str(folder / "prefect")}), _own_log():
            stack.enter_context(prefect_for_a_run(folder, None))
            url = os.environ["PREFECT_API_URL"]
        stack.enter_context(_settings(url))
        yield url
    shutil.rmtree(folder)
    forget_prefects_sockets()


@contextlib.contextmanager
def _settings(url: str) -> Iterator[None]:
    """Prefect's settings, which it reads once when it is imported, perhaps by a test before ours."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_LEVEL,
        temporary_settings,
    )

    ours = {PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_LEVEL: "CRITICAL"}
    with temporary_settings(ours):
        yield


def forget_prefects_sockets() -> None:
    """Prefect's own clients leave sockets to the garbage collector, which would complain of them (3.8.8)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def session_home(prefect_url: str, art: Path) -> Iterator[Studio]:
    """The home that all tests share; its sandbox makes small videos."""
    folder = open_folder()
    home = Studio(folder, prefect_url, art)
    home.open_sandbox()
    yield home
    home.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def harbor(session_home: Studio) -> Harbor:
    """A season with every kind of character, run by the real command from nothing to its folder, and once more."""
    home = session_home
    dead = train_by_hand(home.art, "rui", home.folder / "dead.safetensors", steps=0)
    cast = [
        home.learned("mei"),
        home.learned("tova", base="wan-22-t2v-a14b", steps=200),
        home.untrained("dario"),
        home.learned("rui", lora=str(dead)),
    ]
    won = make_clip(home.folder / "won.mp4", seconds=1, size=(320, 240), has_sound=True)
    slots: list[Entry] = [
        {"number": 1, "video": str(won)},
        {"number": 2, "prompt": "@Mei and @Dario meet on the pier", "video_model": "kling_o1_reference", "seconds": 3},
        {"number": 3, "prompt": "@Mei runs at night", "video_model": "kling_v25_turbo", "seconds": 5},
        {"number": 4, "prompt": "@Tova jumps over puddles", "video_model": "wan_22_t2v_lora", "seconds": 1},
        {"number": 6, "prompt": "@Tova waves from the gallery", "video_model": "veo_31", "seconds": 4},
        {"number": 7, "prompt": "@Rui looks out to sea", "seconds": 3},
    ]
    manifest = home.write("harbor", cast, slots)
    first = home.run_apart(manifest)
    bought = home.posts()
    again = home.run_apart(manifest, PYTHONPROFILEIMPORTTIME="1")
    return Harbor(manifest, cast, slots, first, again, bought, home.posts(), _copy_tables(home, "harbor_done"))


def _copy_tables(home: Home, name: str) -> str:
    """The address of a copy of a home's database; whoever was connected to the original connects anew."""
    server = ensure_server(home.home)
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'onmodel'")
        db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE onmodel").format(sql.Identifier(name)))
    return server.url_of(name)


@pytest.fixture
def untouched(harbor: Harbor, session_home: Studio) -> Iterator[Studio]:
    """The shared home on the tables as they were when `harbor` was done, whatever other tests have made of it since."""
    with ports_of(session_home, ONMODEL_DATABASE_URL=harbor.database_url):
        yield session_home


@pytest.fixture
def studio(session_home: Studio) -> Iterator[Studio]:
    """The shared home, with the ports of this process on it for the length of a test."""
    with ports_of(session_home):
        yield session_home
        # The next test's vendor has the same name, no trouble yet, and none of a stand-in's files.
        with open_ports().database.transaction() as db:
            db.execute("DELETE FROM vendor_circuits")
            db.execute("DELETE FROM vendor_files WHERE url LIKE 'standin:%'")


@contextlib.contextmanager
def ports_of(home: Home, **environment: str) -> Iterator[None]:
    """`open_ports()` of this process works on a home; afterwards environment, log and ports are as before."""
    with _environment({**home.environment(), **environment}), _own_log():
        open_ports.cache_clear()
        open_ports().clock = ImpatientClock()
        try:
            yield
        finally:
            open_ports().close()
            open_ports.cache_clear()
            forget_prefects_sockets()


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Whatever the command line and Prefect hang into our log is taken out again."""
    logger = logging.getLogger("onmodel")
    told = (logger.level, logger.propagate, list(logger.handlers))
    try:
        yield
    finally:
        logger.level, logger.propagate, logger.handlers[:] = told


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables set; afterwards every variable is as it was before."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def own_home(prefect_url: str, art: Path) -> Iterator[Home]:
    """A home of this test alone; whatever still runs there in the end is stopped."""
    folder = open_folder()
    home = Home(folder, prefect_url, art)
    ensure_server(home.home)
    yield home
    home.close()
    shutil.rmtree(folder)
