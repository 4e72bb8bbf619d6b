"""How far a training at fal is, read from log lines whose form nobody has written down."""

from __future__ import annotations

from typing import Any

import pytest

from domain.jobs import TrainingProgress
from providers.fal.logs import LINES_READ, log_lines, training_progress


def told(*lines: str | tuple[str, str]) -> TrainingProgress | None:
    entries = [
        {"message": line} if isinstance(line, str) else dict(zip(("message", "timestamp"), line, strict=True))
        for line in lines
    ]
    return training_progress(log_lines(entries))


def test_the_newest_count_says_the_step_and_its_loss() -> None:
    seen = told("step 10/200 loss 0.5", "Step 50 / 200, loss: 1.2e-1", "saving a checkpoint")
    assert seen == TrainingProgress(step=50, total_steps=200, loss=0.12)


def test_what_is_left_follows_from_the_times_of_the_lines() -> None:
    seen = told(("step 10/110", "2026-11-20T12:00:00Z"), ("step 60/110", "2026-11-20T12:00:25Z"))
    assert seen == TrainingProgress(step=60, total_steps=110, seconds_left=25.0)


def test_a_training_bar_is_read_as_on_our_own_machines() -> None:
    seen = told("mei:  25%|##5       | 500/2000 [10:00<30:00,  1.2s/it, lr: 2.0e-04 loss: 3.1e-02]")
    assert seen == TrainingProgress(step=500, total_steps=2000, loss=0.031, seconds_left=1800.0)


@pytest.mark.parametrize(
    "line",
    ["loading https://v3.fal.media/files/1/2", "11/20/2026 ready", "30/20", "5/0", "v1/2", "", "loss 3"],
)
def test_what_only_looks_like_a_count_is_none(line: str) -> None:
    assert told(line) is None


@pytest.mark.parametrize("logs", [None, "x", {}, [None, 7, {"message": None}], [{"level": "INFO"}]])
def test_logs_in_any_other_shape_tell_nothing(logs: Any) -> None:
    assert training_progress(log_lines(logs)) is None


def test_times_that_make_no_sense_leave_open_what_is_left() -> None:
    assert told(("step 1/9", "soon"), ("step 2/9", "later")) == TrainingProgress(step=2, total_steps=9)
    backwards = told(("step 1/9", "2026-11-20T12:00:09Z"), ("step 2/9", "2026-11-20T12:00:00Z"))
    assert backwards == TrainingProgress(step=2, total_steps=9)


def test_only_the_newest_lines_of_a_long_log_are_read() -> None:
    assert len(log_lines([{"message": "x"}] * (LINES_READ + 5))) == LINES_READ
