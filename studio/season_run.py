"""`onmodel run` and `onmodel season import`: from a manifest to its folder of results."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from providers.wiring import open_ports
from studio.folders import usable_folder
from studio.prefect_setup import prefect_for_a_run, set_defaults
from studio.showing import season_document, tell_result
from studio.telling import print_json, say, tell_progress

if TYPE_CHECKING:
    from providers.wiring import Ports

OUT = Path("onmodel-out")


def import_manifest(file: Path, *, as_json: bool) -> int:
    """Check and store a manifest. Exit 0, or 2 with a sentence per problem."""
    from tasks.importing import import_season

    tell_progress()
    ports = open_ports()
    season_id = import_season(ports, file)
    if as_json:
        print_json(season_document(ports, season_id))
    else:
        season = ports.seasons.get(season_id)
        cast, slots = ports.cast.of_season(season_id), ports.seasons.slots(season_id)
        say(f"{season.slug}: {len(cast)} characters and {len(slots)} slots are stored. Run it with: onmodel run {file}")
    return 0


def run_season(file: Path, out: Path | None, *, as_json: bool) -> int:
    """Run a season to its folder. The exit code says what is left (see `studio/cli.py`)."""
    from tasks.importing import import_season

    began = time.monotonic()
    if out is not None:
        usable_folder(out)
    tell_progress()
    ports = open_ports()
    season_id = import_season(ports, file, is_run_next=True)
    usable_folder(out or OUT / ports.seasons.get(season_id).slug)
    exit_code = run_flow(ports, season_id)
    return finish(ports, season_id, out, exit_code, as_json=as_json, seconds=time.monotonic() - began)


def run_flow(ports: Ports, season_id: int) -> int:
    """The flow `render-season` in this process; skipped, Prefect and all, when nothing is left to do."""
    season = ports.seasons.get(season_id)
    if season.finished_sha256 == season.manifest_sha256:
        return 0
    with prefect_for_a_run(ports.settings.home, ports.settings.prefect_api_url):
        from flows.render_season import render_season

        return asyncio.run(render_season(season.slug))


def finish(ports: Ports, season_id: int, out: Path | None, exit_code: int, *, as_json: bool, seconds: float) -> int:
    """Write the results and say what came of the run."""
    set_defaults(ports.settings.home)  # what writes reports also holds Prefect's tasks
    from tasks.reporting import export_season

    folder = out or OUT / ports.seasons.get(season_id).slug
    export_season(ports, season_id, folder)
    if as_json:
        print_json({**season_document(ports, season_id), "folder": str(folder.absolute()), "exit_code": exit_code})
    else:
        tell_result(ports, season_id, folder, seconds, exit_code)
    return exit_code
