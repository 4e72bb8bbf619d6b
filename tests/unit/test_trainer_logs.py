"""What is read out of the trainers' logs, and what is not taken for anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from providers.trainers import logs
from providers.trainers.logs import last_words, progress_of, trouble_in

AI_TOOLKIT = (
    "Generating baseline samples before training\n"
    "MEIKOB_01:   0%|          | 0/2000 [00:00<?, ?it/s]\r"
    "MEIKOB_01:  12%|#2        | 239/2000 [05:09<37:53,  1.29s/it, lr: 1.0e-04 loss: 3.601e-01]\r"
    "MEIKOB_01:  12%|#2        | 240/2000 [05:10<37:52,  1.29s/it, lr: 1.0e-04 loss: 3.512e-01]"
)
MUSUBI = "epoch 1/10\nsteps:  13%|█▎        | 440/3300 [21:33<2:20:06,  2.94s/it, avr_loss=0.1]"


def test_ai_toolkits_newest_line_is_read_through_carriage_returns() -> None:
    assert progress_of(AI_TOOLKIT) == (240, 2000, 0.3512, 37 * 60 + 52)


def test_musubis_and_sd_scripts_line_is_read() -> None:
    assert progress_of(MUSUBI) == (440, 3300, 0.1, 2 * 3600 + 20 * 60 + 6)


def test_a_bar_at_its_start_has_neither_loss_nor_time() -> None:
    assert progress_of("steps:   0%|          | 0/3300 [00:00<?, ?it/s]") == (0, 3300, None, None)


def test_a_training_of_days_is_counted_in_seconds() -> None:
    line = "steps:   1%|          | 10/9000 [1:00:00<1 day, 2:00:03, 9.9s/it, avr_loss=0.2]"
    assert progress_of(line) == (10, 9000, 0.2, 26 * 3600 + 3)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Fetching 12 files:  30%|###       | 4/12 [00:10<00:20,  2.5s/it]",
        "Caching latents to disk:  50%|#####     | 10/20 [00:01<00:01, 9.9it/s]",
        "Generating Images:  50%|#####     | 1/2 [00:30<00:30, 30.0s/it]",
        "steps:  13%|#  | 440/33",  # cut in the middle
        "steps: 900%|#  | 9/1 [00:01<00:00, 1.0it/s, avr_loss=0.1]",
        "the steps: 440/3300 are many, avr_loss=0.1",
    ],
)
def test_other_bars_and_broken_ones_are_no_progress(line: str) -> None:
    assert progress_of(line) is None


def test_an_older_training_bar_counts_while_samples_are_drawn() -> None:
    drawing = "\rGenerating Images:  50%|#####     | 1/2 [00:30<00:30, 30.0s/it]"
    assert progress_of(AI_TOOLKIT + drawing) == progress_of(AI_TOOLKIT)


def test_a_loss_that_is_no_number_is_trouble_and_no_figure() -> None:
    line = "steps:  13%|#  | 440/3300 [21:33<2:20:06,  2.94s/it, avr_loss=nan]"
    assert progress_of(line) == (440, 3300, None, 2 * 3600 + 20 * 60 + 6)
    assert trouble_in(f"{line}\r") == "the loss became nan at step 440 of 3300"


def test_a_loss_without_bounds_is_trouble_too() -> None:
    line = "x:  13%|#  | 4/33 [21:33<00:06,  2.94s/it, lr: 1.0e-04 loss: inf]"
    assert trouble_in(line) == "the loss became inf at step 4 of 33"


def test_ai_toolkits_hidden_nan_is_trouble_from_the_third_time_on() -> None:
    assert trouble_in("loss is nan\n" * 2 + AI_TOOLKIT) is None
    assert trouble_in("loss is nan\n" * 3 + AI_TOOLKIT) == "the loss was no number 3 times (`loss is nan`)"


def test_healthy_logs_are_no_trouble() -> None:
    for text in (AI_TOOLKIT, MUSUBI, "", "a caption about nan bread, the loss is nancy's"):
        assert trouble_in(text) is None


def test_a_batch_skipped_for_memory_is_no_trouble_and_the_fourth_is() -> None:
    skipped = "# OOM during training step, skipping batch 1/3 #\n"
    assert trouble_in(skipped + AI_TOOLKIT) is None
    given_up = "Error running job: OOM during training step 3 times in a row, aborting training\n"
    assert trouble_in(skipped * 3 + given_up) == "the GPU's memory was too small, step after step"


def test_memory_that_ran_out_is_said() -> None:
    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    assert trouble_in(f"Traceback (most recent call last):\n{said}") == "the GPU's memory was too small"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("Error running job: [Errno 2] No such file: 'x'", "ai-toolkit gave up: [Errno 2] No such file: 'x'"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "set HF_TOKEN"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0", "driver is too old"),
    ],
)
def test_what_ends_a_run_is_said_in_words_that_help(line: str, part: str) -> None:
    assert part in (trouble_in(line) or "")


def test_a_quotation_is_printable_on_one_line_and_short() -> None:
    said = trouble_in("Error running job: \x1b[31mbad\x00" + "x" * 5000) or ""
    assert said.isprintable()
    assert len(said) < 400


def test_the_last_error_is_what_a_dead_program_said_last() -> None:
    text = "ValueError: caught\nsteps: 1\nTraceback (most recent call last):\n  File ...\nKeyError: 'dit'\n"
    assert last_words(text) == "KeyError: 'dit'"
    assert last_words("all went well\n") is None


def test_a_long_line_of_rubbish_is_read_quickly() -> None:
    rubbish = "steps: 1%|" + "#" * 200_000 + "\n" + ": 1%|" * 20_000
    assert progress_of(rubbish) is None
    assert trouble_in(rubbish) is None


def test_the_file_runs_alone_without_anything_of_ours(tmp_path: Path) -> None:
    alone = tmp_path / "alone.py"
    alone.write_text(Path(logs.__file__).read_text("utf-8") + f"\nprint(progress_of({MUSUBI!r}).step)\n", "utf-8")
    ran = subprocess.run([sys.executable, "-I", "-S", str(alone)], capture_output=True, text=True, check=True)
    assert ran.stdout == "440\n"
