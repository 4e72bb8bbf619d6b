"""The command line `onmodel`: what a person types, one function per command, and the exit codes.

Heavy packages (Prefect, numpy, PyAV) are imported inside the commands that need them, so that `--help` answers at once.
Results go to stdout, progress and errors to stderr. Exit codes: 0 done (fallbacks included) · 1 our bug · 2 bad input
or usage · 3 not configured · 4 over budget or out of credit · 5 something failed for good · 6 waits for a person ·
130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from domain.errors import BadInput, OnModelError

OUT = Path("onmodel-out")
HELP = "Keeps the characters of an AI-generated season on-model: from winning clips to a finished season."

app = App(name="onmodel", help=HELP, version_flags=["--version"], help_on_error=False)
season_app = App(name="season", help="Bring a season's manifest into the database.")
app.command(season_app)

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document on stdout.")]
Out = Annotated[Path | None, Parameter(name="--out", help="Folder for the results.")]
SeasonName = Annotated[str, Parameter(help="The season's slug, as in its manifest.")]
ManifestPath = Annotated[Path, Parameter(help="The season's manifest, such as season.yaml.")]


@app.command
def demo(*, out: Out = None, json: AsJson = False) -> int:
    """Draw a small season of our own and run the whole chain on it, at no cost and with no key."""
    from studio.demo_run import run_demo

    return run_demo(out or OUT / "demo", as_json=json)


@app.command
def run(file: ManifestPath, /, *, out: Out = None, json: AsJson = False) -> int:
    """Run a season: learn its characters, render its slots, assemble it, report. Safe to repeat at any time."""
    from studio.season_run import run_season

    return run_season(file, out, as_json=json)


@season_app.command(name="import")
def import_(file: ManifestPath, /, *, json: AsJson = False) -> int:
    """Check a manifest and its files and store them; nothing is rendered and nothing is spent."""
    from studio.season_run import import_manifest

    return import_manifest(file, as_json=json)


@app.command
def status(season: SeasonName, /, *, json: AsJson = False) -> int:
    """How a season stands: its characters, its slots, its money, and what waits for a person."""
    from studio.showing import show_status

    return show_status(season, as_json=json)


@app.command
def costs(season: SeasonName, /, *, json: AsJson = False) -> int:
    """What a season has cost, by stage, beside what was forecast."""
    from studio.showing import show_costs

    return show_costs(season, as_json=json)


@app.command
def report(season: SeasonName, /, *, out: Out = None, json: AsJson = False) -> int:
    """Write the season's report and clips again."""
    from studio.showing import write_season

    return write_season(season, out or OUT / season, as_json=json)


@app.command
def pin(season: SeasonName, character: str, /, *, json: AsJson = False) -> int:
    """Pin a character to its newest reference set, after you have looked at it."""
    from studio.showing import pin_references

    return pin_references(season, character, as_json=json)


@app.command
def doctor(*, json: AsJson = False) -> int:
    """Check this machine: ffmpeg, database, storage, Prefect, keys; one sentence each."""
    from studio.doctor import examine

    return examine(as_json=json)


@app.command
def serve(*, port: Annotated[int, Parameter(help="Port of the Prefect server.")] = 4200) -> int:
    """Start a lasting Prefect server, a worker and the deployments on this machine, until Ctrl-C."""
    from studio.serving import serve_forever

    return serve_forever(port)


@app.command
def sandbox(
    *,
    faults: Annotated[str | None, Parameter(help="Fault plan, such as 'submit:drop_after_accept#2'.")] = None,
    tls: Annotated[bool, Parameter(negative="", help="Serve unmodified programs through a proxy with TLS.")] = False,
) -> int:
    """Run the rehearsal stage alone: fal's protocol on loopback, at no cost."""
    from studio.sandbox_run import run_sandbox

    return run_sandbox(faults, tls=tls)


@app.command
def stop() -> int:
    """Stop the built-in database and the sandbox of this machine; what they hold stays."""
    from studio.sandbox_run import stop_everything

    return stop_everything()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: run a command and leave with its exit code."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors become one sentence on stderr."""
    from studio.telling import complain, keep_traceback

    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        complain(f"{str(error).strip()} See onmodel --help.")
        return BadInput.exit_code
    except OnModelError as error:
        complain(error.message)
        return error.exit_code
    except KeyboardInterrupt:
        complain("Interrupted. Nothing is lost: the same command goes on where it was.")
        return 130
    except Exception as error:  # noqa: BLE001 (the last line of defence: say it is ours, keep the traceback)
        complain(f"This is a bug of OnModel ({type(error).__name__}: {error}). Its traceback is in {keep_traceback()}.")
        return 1
    return int(result or 0)


if __name__ == "__main__":
    main()
