"""`onmodel maintain`: what upkeep would do, or did, told to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.wiring import open_ports
from studio.prefect_setup import set_defaults
from studio.telling import print_json, say, tell_progress

if TYPE_CHECKING:
    from domain.upkeep import MaintenanceReport, StepReport

NOTHING = "Nothing to tidy up."
BUSY = "Another pass of maintain is at work; nothing was done. Run this again when it is over."


def tidy_up(*, is_dry_run: bool, as_json: bool) -> int:
    """Tidy up, or say what would be done. Exit 0, 6 when something waits for a person, 5 when a step failed."""
    tell_progress()
    ports = open_ports()
    set_defaults(ports.settings.home)  # what upkeep does also holds Prefect's tasks
    from tasks.maintaining import tidy

    report = tidy(ports, is_dry_run=is_dry_run)
    if not (is_dry_run or report.is_busy):
        ports.upkeep.keep_report(report)
    if as_json:
        print_json({**report.model_dump(mode="json"), "exit_code": report.exit_code})
    else:
        _tell(report)
    return report.exit_code


def _tell(report: MaintenanceReport) -> None:
    if report.is_busy:
        say(BUSY)
        return
    if report.is_quiet:
        say(NOTHING)
        return
    for step in report.steps:
        _tell_step(step)
    if report.is_dry_run and any(step.did for step in report.steps):
        say()
        say("Nothing was changed. To do it: onmodel maintain --apply")


def _tell_step(step: StepReport) -> None:
    lines = [("", line) for line in step.did]
    lines += [("waits for you: ", line) for line in step.waits]
    lines += [("not done: ", line) for line in step.problems]
    if lines:
        say(f"{str(step.step).capitalize()}:")
    for mark, line in lines:
        say(f"  {mark}{line}", hang=4)
