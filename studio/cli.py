"""The command line `onmodel`: what a person types, one function per command, and the exit codes.

Heavy packages (Prefect, numpy, PyAV) are imported inside the commands that need them, so that `--help` answers at once.
Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from studio.models_commands import add_models_commands
from studio.money_commands import AsJson, SeasonName, add_money_commands
from studio.profiles_commands import add_profile_commands

OUT = Path("onmodel-out")
HELP = "Keeps the characters of an AI-generated season on-model, from its winning clips to the finished season."
EXIT_CODES = """\
Exit codes:
  0  done, fallbacks included      4  over budget, or the vendor's account is
  1  a bug of ours                    locked or empty
  2  bad input or usage            5  a slot or a job failed for good
  3  not configured                6  something waits for a person
                                 130  interrupted; the same command goes on"""


def _version() -> str:
    from importlib.metadata import version

    return f"onmodel {version('onmodel')}"


app = App(
    name="onmodel",
    help=HELP,
    help_epilogue=EXIT_CODES,
    help_format="plaintext",
    version=_version,
    help_on_error=False,
    suppress_keyboard_interrupt=False,
    group_commands=Group("Other", sort_key=9),
)
MAKING = Group("Make a season", sort_key=1)
LOOKING = Group("Look at a season", sort_key=2)
BY_HAND = Group("Pick pictures by hand", sort_key=3)
MACHINE = Group("This machine", sort_key=5)

season_app = App(
    name="season",
    help="season import FILE: check a manifest and store it.",
    help_epilogue="",
    group=MAKING,
    sort_key=3,
)
app.command(season_app)
add_money_commands(app)
add_models_commands(app)
add_profile_commands(app)

Out = Annotated[
    Path | None, Parameter(name="--out", help="Folder for the results; otherwise onmodel-out/ and the season's slug.")
]
DemoOut = Annotated[Path | None, Parameter(name="--out", help="Folder for the results; otherwise onmodel-out/demo.")]
ManifestPath = Annotated[Path, Parameter(help="The season's manifest, such as season.yaml.")]
CharacterName = Annotated[str, Parameter(help="The character's name, as in the manifest.")]
Clips = Annotated[Path, Parameter(help="Clips, such as slot-01.mp4: MP4, MOV, WebM, MKV or AVI.")]
FramesOut = Annotated[Path | None, Parameter(name="--out", help="Folder of its own; otherwise onmodel-out/frames.")]
DatasetOut = Annotated[
    Path | None, Parameter(name="--out", help="Folder of its own; otherwise onmodel-out/SEASON/datasets/CHARACTER.")
]
Trainer = Annotated[
    str | None, Parameter(help="A trainer's key, or a layout: plain, ai_toolkit, kohya, musubi, clips.")
]
Count = Annotated[int | None, Parameter(help="Pictures per clip at most; otherwise 16 to 60 by its length.")]
Keep = Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help="Take these all the same: NAME,NAME")]
Drop = Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help="Leave these out: NAME,NAME")]
Undecide = Annotated[
    tuple[str, ...], Parameter(negative="", show_default=False, help="Leave these to the rules again.")
]


@app.command(group=MAKING, sort_key=1, help_epilogue="")
def demo(
    *,
    out: DemoOut = None,
    vendor: Annotated[
        str | None, Parameter(help="As whom: fal, replicate, runpod, comfyui, or mixed, a vendor for each stage.")
    ] = None,
    json: AsJson = False,
) -> int:
    """Draw a small season and run the whole chain, free.

    It needs no key and no GPU: the vendors are played by the sandbox of this
    machine, each in its own protocol.
    """
    from studio.demo_run import run_demo

    return run_demo(out or OUT / f"demo{f'-{vendor}' if vendor else ''}", vendor=vendor, as_json=json)


@app.command(group=MAKING, sort_key=2, help_epilogue="")
def run(file: ManifestPath, /, *, out: Out = None, json: AsJson = False) -> int:
    """Run a season: learn, render, assemble, report.

    Safe to repeat at any time: what is done stays done, and nothing is paid twice.
    """
    from studio.season_run import run_season

    return run_season(file, out, as_json=json)


@season_app.command(name="import")
def import_(file: ManifestPath, /, *, json: AsJson = False) -> int:
    """Check a manifest and its files and store them.

    Nothing is rendered and nothing is spent. Afterwards the season can be started from the Prefect UI.
    """
    from studio.season_run import import_manifest

    return import_manifest(file, as_json=json)


@app.command(group=LOOKING, sort_key=1, help_epilogue="")
def status(season: SeasonName, /, *, json: AsJson = False) -> int:
    """How it stands, and what waits for you."""
    from studio.showing import show_status

    return show_status(season, as_json=json)


@app.command(group=LOOKING, sort_key=3, help_epilogue="")
def report(season: SeasonName, /, *, out: Out = None, json: AsJson = False) -> int:
    """Write its report, cost table and clips again."""
    from studio.showing import write_season

    return write_season(season, out or OUT / season, as_json=json)


@app.command(group=LOOKING, sort_key=4, help_epilogue="")
def pin(season: SeasonName, character: CharacterName, /, *, json: AsJson = False) -> int:
    """Pin a character whose references you approve.

    Only a season with review: true waits for this.
    """
    from studio.showing import pin_references

    return pin_references(season, character, as_json=json)


@app.command(group=BY_HAND, sort_key=1, help_epilogue="")
def frames(
    *clips: Clips,
    out: FramesOut = None,
    count: Count = None,
    keep: Keep = (),
    drop: Drop = (),
    undecide: Undecide = (),
    json: AsJson = False,
) -> int:
    """Pick the best pictures out of any clips.

    The sharp, lit and different ones, with a contact sheet of what was kept,
    what was left, and why. It needs no season.

    Overrule it by the same command with the names on the sheet, such as
    --drop slot-01@3.500,slot-01@7.000; that is remembered in the folder.

    A clip that cannot be read is told and left out: the others are done, and
    the command ends with 2.
    """
    from studio.frames_by_hand import pick_frames

    folder = out or OUT / "frames"
    return pick_frames(clips, folder, count=count, keep=keep, drop=drop, undecide=undecide, as_json=json)


@app.command(group=BY_HAND, sort_key=2, help_epilogue="")
def dataset(
    season: SeasonName,
    character: CharacterName,
    /,
    *,
    trainer: Trainer = None,
    out: DatasetOut = None,
    keep: Keep = (),
    drop: Drop = (),
    undecide: Undecide = (),
    json: AsJson = False,
) -> int:
    """Choose and write a character's training set.

    What is missing is done first, at no cost: clips are looked through, the set
    is chosen. A contact sheet shows what is trained, what is held out, what
    waits for your word, and what was left out, and why.

    Overrule it with the names on the sheet, such as --keep f12,s2 --drop f7;
    later runs of the season keep to it. With too few pictures it ends with 2
    and still writes the sheet.
    """
    from studio.dataset_by_hand import make_dataset

    return make_dataset(season, character, out, trainer=trainer, keep=keep, drop=drop, undecide=undecide, as_json=json)


@app.command(group=MACHINE, sort_key=1, help_epilogue="")
def doctor(*, json: AsJson = False) -> int:
    """Check what a season needs, and say what to mend."""
    from studio.doctor import examine

    return examine(as_json=json)


@app.command(group=MACHINE, sort_key=5, help_epilogue="")
def maintain(
    *,
    apply: Annotated[
        bool, Parameter(negative="", show_default=False, help="Do it; otherwise it only says what it would do.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Tidy up after crashes.

    Takes up jobs nobody watches, restarts runs whose machine died, deletes
    rented machines without a job, and files nothing refers to.
    """
    from studio.maintaining import tidy_up

    return tidy_up(is_dry_run=not apply, as_json=json)


@app.command(group=MACHINE, sort_key=2, help_epilogue="")
def serve(*, port: Annotated[int, Parameter(help="Port of the Prefect server.")] = 4200) -> int:
    """Run Prefect, a worker and our deployments here.

    Everything stays on this machine and keeps its data in ONMODEL_HOME. Ctrl-C ends it.
    """
    from studio.serving import serve_forever

    return serve_forever(port)


@app.command(group=MACHINE, sort_key=3, help_epilogue="")
def sandbox(
    *,
    faults: Annotated[str | None, Parameter(help="Fault plan, such as 'submit:drop_after_accept#2'.")] = None,
    tls: Annotated[
        bool, Parameter(negative="", show_default=False, help="Serve unmodified programs too, by proxy and TLS.")
    ] = False,
) -> int:
    """Run the rehearsal vendors alone, until Ctrl-C.

    It speaks the protocols of fal, Replicate, RunPod and ComfyUI on this machine,
    at no cost, and fails on request.
    """
    from studio.sandbox_run import run_sandbox

    return run_sandbox(faults, tls=tls)


@app.command(group=MACHINE, sort_key=4, help_epilogue="")
def stop() -> int:
    """End the built-in database and the sandbox.

    What they hold stays; the next command starts them again.
    """
    from studio.sandbox_run import stop_everything

    return stop_everything()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: run a command and leave with its exit code."""
    import os

    from studio.interrupting import leave_on_interrupt

    # Our matrices are small, and on a busy machine the threads of one product wait for each other longer than it takes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    leave_on_interrupt()
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors become sentences on stderr, and with --json a document on stdout."""
    from studio.outcome import exit_code_of

    def call() -> int:
        return int(app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0)

    return exit_code_of(call, as_json="--json" in arguments)


if __name__ == "__main__":
    main()
