"""`onmodel demo`: draw the demo's material, then run it like anybody's season."""

from __future__ import annotations

import time
from pathlib import Path

from providers.wiring import open_ports
from studio.folders import usable_folder
from studio.season_run import finish, run_flow
from studio.telling import say, tell_progress


def run_demo(folder: Path, *, vendor: str | None, as_json: bool) -> int:
    """The whole chain on clips of our own drawing; results in `folder`, the material in `folder/material`.

    With a vendor's name the season is made as that vendor would make it, by the sandbox in its place.
    """
    import logging

    from studio.demo.season import draw_demo
    from studio.demo.vendors import demo_manifest
    from tasks.importing import import_season

    text = demo_manifest(vendor)

    began = time.monotonic()
    usable_folder(folder)
    tell_progress()
    log = logging.getLogger("onmodel.demo")
    ports = open_ports()
    log.info("drawing the demo's clips")
    manifest = draw_demo(folder / "material", ffmpeg=ports.ffmpeg)
    if vendor is not None:
        manifest = manifest.with_name(f"season-{vendor}.yaml")
        manifest.write_text(text, "utf-8")
    season_id = import_season(ports, manifest)
    exit_code = run_flow(ports, season_id)
    code = finish(ports, season_id, folder, exit_code, as_json=as_json, seconds=time.monotonic() - began)
    if not as_json:
        say(f"The manifest to copy for your own season: {manifest}")
    return code
