"""Where the demo's time goes: `python -m benchmarks.demo_time [--runs 1]`.

Runs `onmodel demo` in an empty home and prints wall and CPU seconds by phase and by process, beside two references
measured in the same minutes on the same machine: the bare ffmpeg putting the same clips together, and a bare Prefect
flow with as many empty tasks. Compare the ratios; on a busy machine trust the CPU seconds, not the wall.

Phases overlap, because characters and slots go side by side: a phase's wall time is the time in which at least one
of its tasks was at work. Its CPU seconds are those of the tasks' own threads; what ffmpeg, the sandbox, Postgres
and Prefect's server used stands under their names, read from /proc four times a second (Linux only).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from domain.records import Record
from providers.wiring import close_embedded_server, close_sandbox

ROOT = Path(__file__).parent.parent
LOOK_EVERY_SECONDS = 0.25
BAR_SECONDS = 120
COMPILED = str(Path(tempfile.gettempdir()) / "onmodel-demo-time-compiled")

PHASES = {
    "harvest-clip": "harvest and curate",
    "curate-training-set": "harvest and curate",
    "ensure-lora": "training",
    "plan-training": "training",
    "adopt-weights": "training",
    "check-weights": "training",
    "may-train-again": "training",
    "lora_training": "training",
    "plan-views": "identity views",
    "judge-views": "identity views",
    "identity_check": "identity views",
    "plan-references": "references",
    "keep-references": "references",
    "pin-character": "references",
    "references": "references",
    "pinning": "references",
    "assemble-season": "assembly",
}
"""Tasks, and stages of jobs, by the phase they belong to; whatever else there is belongs to the slots."""

ORDER = (
    "drawing", "import", "prefect start", "harvest and curate", "training", "identity views", "references", "slots",
    "assembly", "report",
)  # fmt: skip


class Span(Record):
    """One task or step: from when to when (seconds of the run), and what its own thread used of the CPU."""

    name: str
    job_key: str | None = None
    began: float
    ended: float
    cpu_seconds: float


class Timing(Record):
    """One run of the demo."""

    exit_code: int
    wall_seconds: float
    spans: tuple[Span, ...]
    stage_of_job: dict[str, str]
    main_cpu_seconds: float
    cpu_of_role: dict[str, float]
    peak_megabytes: dict[str, float]


def main() -> int:
    """Run the demo, print its phases; 0 when every run succeeded within the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        return _run_measured(asked.child)
    if asked.tasks is not None:
        return _run_bare_flow(asked.tasks)
    with _home() as home:
        time_bare_flow(home, 1)  # so that every package is compiled, as an installation leaves them
    timings = []
    for number in range(asked.runs):
        with _home() as home:
            timing = time_demo(home)
            encoding = time_bare_assembly(home / "out")
        with _home() as home:
            flow = time_bare_flow(home, sum(span.name not in ORDER for span in timing.spans))
        print(f"\nrun {number + 1} of {asked.runs}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # noqa: T201
        print("\n".join(describe(timing, encoding, flow)))  # noqa: T201
        timings.append(timing)
    is_fine = all(timing.exit_code == 0 and timing.wall_seconds <= BAR_SECONDS for timing in timings)
    return 0 if is_fine else 1


@contextmanager
def _home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        close_sandbox(folder / "home")
        close_embedded_server(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


def time_demo(folder: Path) -> Timing:
    """The demo in a home under `folder`, its results in `folder/out`; watched from outside and timed from inside."""
    notes = folder / "spans.json"
    command = [sys.executable, "-m", "benchmarks.demo_time", "--child", str(notes)]
    began = time.monotonic()
    with (folder / "demo.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, env=_environ(folder / "home"), stdout=log, stderr=log)
        watch = _Watch(child.pid, str(folder))
        while child.poll() is None:
            watch.look()
            time.sleep(LOOK_EVERY_SECONDS)
    wall = time.monotonic() - began
    if not notes.exists():
        raise SystemExit(f"The demo did not get to its end:\n{(folder / 'demo.log').read_text()[-2000:]}")
    inside = json.loads(notes.read_text())
    return Timing(
        exit_code=child.returncode,
        wall_seconds=wall,
        spans=tuple(Span.model_validate(span) for span in inside["spans"]),
        stage_of_job=inside["stages"],
        main_cpu_seconds=inside["cpu"],
        cpu_of_role=watch.cpu_seconds(),
        peak_megabytes=watch.peaks(),
    )


def time_bare_assembly(out: Path) -> tuple[float, float]:
    """(wall, CPU) seconds of one ffmpeg putting the season's clips together at the season's size and quality."""
    from providers.media import find_ffmpeg

    clips = sorted((out / "clips").glob("slot-*.*"))
    assert clips, f"no clips under {out}"
    fitted = "".join(
        f"[{i}:v]fps=24,scale=1280:720:force_original_aspect_ratio=decrease,pad=1280:720:-1:-1,setsar=1,"
        f"format=yuv420p[v{i}];"
        for i in range(len(clips))
    )
    joined = "".join(f"[v{i}]" for i in range(len(clips))) + f"concat=n={len(clips)}[v]"
    inputs = [word for clip in clips for word in ("-i", str(clip))]
    command = [
        find_ffmpeg(), "-v", "error", "-nostdin", "-y", *inputs, "-filter_complex", fitted + joined, "-map", "[v]",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", str(out / "bare.mp4"),
    ]  # fmt: skip
    return _timed(command, None)


def time_bare_flow(folder: Path, tasks: int) -> tuple[float, float]:
    """(wall, CPU) seconds of a process that runs a flow of so many empty tasks on a new temporary server."""
    command = [sys.executable, "-m", "benchmarks.demo_time", "--tasks", str(tasks)]
    return _timed(command, _environ(folder / "home"))


def _timed(command: list[str], environ: dict[str, str] | None) -> tuple[float, float]:
    before, began = os.times(), time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - began, cpu


def _environ(home: Path) -> dict[str, str]:
    """A clean environment; compiled modules are kept, as a normal installation has them."""
    left_out = ("ONMODEL_", "PREFECT_", "FAL_", "PYTHONDONTWRITEBYTECODE")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {"PYTHONPYCACHEPREFIX": COMPILED, **mine, "ONMODEL_HOME": str(home)}


# --- what is printed ---


def describe(timing: Timing, encoding: tuple[float, float], flow: tuple[float, float]) -> list[str]:
    """Phases, processes, references and ratios, as lines."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for span in timing.spans:
        spans[_phase(span, timing)].append(span)
    lines = [f"{'phase':22}{'from':>8}{'to':>8}{'wall s':>9}{'own CPU s':>11}{'tasks':>7}"]
    for phase in ORDER:
        if mine := spans.get(phase):
            began, ended = min(span.began for span in mine), max(span.ended for span in mine)
            cpu = sum(span.cpu_seconds for span in mine)
            count = sum(span.name not in ORDER for span in mine)
            lines.append(f"{phase:22}{began:8.1f}{ended:8.1f}{_covered(mine):9.1f}{cpu:11.1f}{count or '':>7}")
    by_task: dict[str, list[float]] = defaultdict(list)
    for span in timing.spans:
        by_task[f"{span.name} ({stage})" if (stage := _stage(span, timing)) else span.name].append(span.cpu_seconds)
    dearest = sorted(by_task.items(), key=lambda item: -sum(item[1]))[:12]
    lines += ["", "dearest tasks, CPU seconds of their own thread:"]
    lines += [f"  {name:34}{sum(cpu):8.1f}{len(cpu):7} times" for name, cpu in dearest]
    in_tasks = sum(span.cpu_seconds for span in timing.spans)
    others = sum(timing.cpu_of_role.values())
    lines += ["", f"{'process':34}{'CPU s':>8}{'peak MB':>9}"]
    lines.append(f"{'onmodel demo, in steps and tasks':34}{in_tasks:8.1f}{timing.peak_megabytes.get('main', 0):9.0f}")
    lines.append(f"{'onmodel demo, between them':34}{timing.main_cpu_seconds - in_tasks:8.1f}")
    for role, cpu in sorted(timing.cpu_of_role.items(), key=lambda item: -item[1]):
        lines.append(f"{role:34}{cpu:8.1f}{timing.peak_megabytes.get(role, 0):9.0f}")
    total = timing.main_cpu_seconds + others
    lines.append(f"{'all':34}{total:8.1f}")
    tasks = sum(span.name not in ORDER for span in timing.spans)
    overhead = timing.main_cpu_seconds - in_tasks + timing.cpu_of_role.get("prefect server", 0)
    assembly_wall, assembly_cpu = _covered(spans["assembly"]), timing.cpu_of_role.get("ffmpeg of the assembly", 0)
    lines += [
        "",
        f"the demo: exit {timing.exit_code}, {timing.wall_seconds:.0f} s of wall time, {total:.0f} s of the CPU "
        f"({total / (os.cpu_count() or 1):.0f} s if every core were ours alone)",
        f"bare ffmpeg on the same clips: {encoding[0]:.1f} s, CPU {encoding[1]:.1f} s; our assembly is "
        f"{assembly_wall / encoding[0]:.1f} times the wall, {assembly_cpu / encoding[1]:.1f} times the CPU",
        f"bare Prefect flow of {tasks} tasks: {flow[0]:.1f} s, CPU {flow[1]:.1f} s; the demo between its tasks, with "
        f"Prefect's server: {overhead / flow[1]:.1f} times that",
    ]
    return lines


def _stage(span: Span, timing: Timing) -> str | None:
    return timing.stage_of_job.get(span.job_key) if span.job_key else None


def _phase(span: Span, timing: Timing) -> str:
    if span.name in ORDER:
        return span.name
    return PHASES.get(_stage(span, timing) or span.name, "slots")


def _covered(spans: list[Span]) -> float:
    """Seconds in which at least one of them was going on."""
    total, reached = 0.0, 0.0
    for span in sorted(spans, key=lambda one: one.began):
        total += max(0.0, span.ended - max(reached, span.began))
        reached = max(reached, span.ended)
    return total


# --- watching from outside ---


class _Watch:
    """CPU seconds of every process that knows the run's folder, by what it is for."""

    def __init__(self, main: int, mark: str) -> None:
        self._main, self._mark = main, mark.encode()
        self._role_of: dict[tuple[int, str], str | None] = {}
        self._cpu: dict[tuple[int, str], float] = {}
        self._peak: dict[str, float] = {}
        self._ticks = os.sysconf("SC_CLK_TCK")

    def look(self) -> None:
        """Read every process once; about 5 ms."""
        now: dict[str, float] = defaultdict(float)
        for entry in os.listdir("/proc"):  # noqa: PTH208 (a Path for each process would cost as much as the reading)
            if not entry.isdigit():
                continue
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                process = int(entry), fields[19]
                role = self._role_of.get(process)
                if process not in self._cpu:  # at the first look it may still be a copy of its parent
                    role = self._role_of[process] = self._role(int(entry), int(fields[1]))
                if role is None:
                    continue
                self._cpu[process] = (int(fields[11]) + int(fields[12])) / self._ticks
                now[role] += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            except (OSError, IndexError):
                continue
        for role, size in now.items():
            self._peak[role] = max(size, self._peak.get(role, 0.0))

    def cpu_seconds(self) -> dict[str, float]:
        """By role, the main process left out."""
        total: dict[str, float] = defaultdict(float)
        for process, seconds in self._cpu.items():
            role = self._role_of[process]
            if role is not None and role != "main":
                total[role] += seconds
        return dict(total)

    def peaks(self) -> dict[str, float]:
        """Most resident memory of a role at one look, in MB; shared pages counted for each process."""
        return self._peak

    def _role(self, pid: int, parent: int) -> str | None:
        if pid == self._main:
            return "main"
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        family = next((role for (known, _), role in self._role_of.items() if known == parent and role), "")
        is_ours = family or self._mark in command or self._mark in Path(f"/proc/{pid}/environ").read_bytes()
        if not is_ours:
            return None
        program = Path(command.split(b"\0")[0].decode(errors="replace")).name
        if "ffmpeg" in program:
            return {"main": "ffmpeg of the assembly", "drawing": "ffmpeg of the drawing"}.get(
                family, "ffmpeg of the sandbox"
            )
        if "postgres" in program or b"postgres" in command:
            return "postgres"
        if b"uvicorn" in command or b"temporary_server" in command or b"prefect" in command:
            return "prefect server"
        if b"providers.sandbox" in command:
            return "sandbox"
        if b"multiprocessing" in command:
            return "drawing"
        return "other"


# --- timing from inside ---


def _run_measured(notes: Path) -> int:
    """`onmodel demo` in this process with every step and task timed; the times go to `notes`."""
    started = time.monotonic()
    spans: list[Span] = []

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        is_about_a_job = name in ("submit-job", "await-job")

        def measured(*args: Any, **kwargs: Any) -> Any:
            began, used = time.monotonic(), time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                spans.append(
                    Span(
                        name=name,
                        job_key=kwargs.get("key", args[0] if args else None) if is_about_a_job else None,
                        began=began - started,
                        ended=time.monotonic() - started,
                        cpu_seconds=time.thread_time() - used,
                    )
                )

        return measured

    # Nothing that imports Prefect may be imported here: its settings are put in place first, as in a person's run.
    import studio.demo.season
    import studio.season_run
    import tasks.importing
    from providers.wiring import open_ports
    from studio.cli import run_command

    names = vars(studio.season_run)
    prefect_for_a_run = names["prefect_for_a_run"]

    @contextmanager
    def prefect_watched(*args: Any) -> Iterator[None]:
        with ExitStack() as open_until_the_end:

            def start() -> None:
                open_until_the_end.enter_context(prefect_for_a_run(*args))
                _load_flows()

            timed("prefect start", start)()
            reporting = vars(importlib.import_module("tasks.reporting"))
            reporting["export_season"] = timed("report", reporting["export_season"])
            for task in _our_tasks():
                task.fn = timed(task.name, task.fn)
            yield

    names["prefect_for_a_run"] = prefect_watched
    for module, function, phase in (
        (studio.demo.season, "draw_demo", "drawing"),
        (tasks.importing, "import_season", "import"),
    ):
        vars(module)[function] = timed(phase, vars(module)[function])
    code = run_command(["demo", "--out", str(notes.parent / "out")])
    used = time.process_time()
    ledger = open_ports().ledger
    stages = {span.job_key: str(ledger.get(span.job_key).stage) for span in spans if span.job_key}
    notes.write_text(json.dumps({"spans": [span.model_dump() for span in spans], "stages": stages, "cpu": used}))
    return code


def _load_flows() -> object:
    import flows.render_season

    return flows.render_season


def _our_tasks() -> list[Any]:
    """Every Prefect task of our `tasks` package that is loaded, each once."""
    from prefect import Task

    found = {
        id(value): value
        for name, module in list(sys.modules.items())
        if name.startswith("tasks.")
        for value in vars(module).values()
        if isinstance(value, Task)
    }
    return list(found.values())


def _run_bare_flow(count: int) -> int:
    import asyncio

    from studio.prefect_setup import prefect_for_a_run

    with prefect_for_a_run(Path(os.environ["ONMODEL_HOME"]), None):
        from prefect import flow, task
        from prefect.cache_policies import NO_CACHE

        from flows.running import in_thread

        @task(cache_policy=NO_CACHE)
        def nothing(number: int) -> int:
            return number

        @flow
        async def bare() -> None:
            turn = asyncio.Semaphore(8)

            async def one(number: int) -> None:
                async with turn:
                    await in_thread(nothing, number)

            await asyncio.gather(*(one(number) for number in range(count)))

        asyncio.run(bare())
    return 0


if __name__ == "__main__":
    sys.exit(main())
