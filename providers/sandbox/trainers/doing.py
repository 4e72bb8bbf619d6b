"""What all stand-in programs do: read a folder of pictures, train on it by the engine, print, fail when asked to."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FAULT = "ONMODEL_TRAINER_FAULT"
"""Environment variable that makes a stand-in fail: `nan` (the loss is no number, and B stays zero), `short` (ends well
after half the steps), `oom`, `crash` (an error at half the steps), `no_file` (ends well and leaves none), `gated` (the
base model is refused), or `slow` / `slow:SECONDS` (so long in all, 5 unless it says)."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
CLIPS = (".mp4", ".mov", ".avi", ".mkv")
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.99 GiB"
NOTHING_LEARNT = 1e-15
"""A learning rate at which half precision keeps B at exactly zero: what is left of a training on hidden NaNs."""

Expert = Literal["low", "high"]
Style = Literal["peft", "comfy", "kohya"]


class ProgramError(Exception):
    """What the real program would raise and end on."""


@dataclass(frozen=True)
class Examples:
    """Pictures with the captions beside them."""

    pictures: tuple[Path, ...]
    captions: tuple[str, ...]

    @property
    def trigger_word(self) -> str:
        """The word that every caption begins with, '' without one; the engine asks for it."""
        firsts = {caption.split(maxsplit=1)[0].strip(",.") for caption in self.captions if caption.strip()}
        return firsts.pop() if len(firsts) == 1 else ""


def read_examples(folder: Path, caption_suffix: str, suffixes: Sequence[str] = PICTURES) -> Examples:
    """Every picture (or clip) of a folder; `ProgramError` when there is none, or no folder. A missing caption is ''."""
    if not folder.is_dir():
        raise ProgramError(f"[Errno 2] No such file or directory: {str(folder)!r}")
    pictures = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes))
    if not pictures:
        raise ProgramError(f"no images found in {folder}")
    texts = [path.with_suffix(caption_suffix) for path in pictures]
    return Examples(pictures, tuple(text.read_text("utf-8").strip() if text.is_file() else "" for text in texts))


@dataclass(frozen=True)
class Work:
    """One training: which base in whose spelling, how long, and where the file goes."""

    base: str
    style: Style
    steps: int
    learning_rate: float
    rank: int
    out: Path
    expert: Expert | None = None


def fault() -> str:
    return os.environ.get(FAULT, "").partition(":")[0]


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def check_gate(repository: str) -> None:
    """`ProgramError` in Hugging Face's words when the rehearsal is to find its base closed."""
    if fault() == "gated":
        raise ProgramError(
            f"huggingface_hub.errors.GatedRepoError: 401 Client Error. Access to model {repository} is restricted."
        )


def train(work: Sequence[Work], examples: Examples, bar: Callable[[int, int, float, float], str]) -> None:
    """Do the trainings at once, as one program with one bar; `bar(step, steps, loss, seconds)` is its line.

    The engine's own file appears whole or not at all. Faults as `FAULT` says.
    """
    from providers.sandbox.engine.training import train_lora  # numpy and Pillow, only where something is trained

    kind = fault()
    began = time.monotonic()
    pause = float(os.environ[FAULT].partition(":")[2] or 5) / 20 if kind == "slow" else 0.0
    steps = work[0].steps // 2 if kind == "short" else work[0].steps

    def progress(step: int, _steps: int, loss: float) -> None:
        if kind == "oom":
            raise ProgramError(OOM)
        if kind == "crash" and step * 2 >= work[0].steps:
            raise ProgramError("RuntimeError: CUDA error: an illegal memory access was encountered")
        time.sleep(pause)
        shown = float("nan") if kind == "nan" else loss
        say(bar(step, work[0].steps, shown, time.monotonic() - began) + "\r")

    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "set.zip"
        _pack(archive, _files_of(examples))
        if examples.pictures[0].suffix.lower() in CLIPS:
            _pack(archive, _stills(archive, Path(scratch)))
        for one in work:
            one.out.parent.mkdir(parents=True, exist_ok=True)
            train_lora(
                archive,
                base=one.base,
                trigger_word=examples.trigger_word,
                steps=steps,
                learning_rate=NOTHING_LEARNT if kind == "nan" else one.learning_rate,
                rank=one.rank,
                style=one.style,
                expert=one.expert,
                out=one.out,
                on_progress=progress if one is work[0] else lambda _step, _steps, _loss: None,
            )
            if kind == "no_file":
                one.out.unlink()
    say("\n")


def _files_of(examples: Examples) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path, caption in zip(examples.pictures, examples.captions, strict=True):
        files |= {path.name: path.read_bytes(), f"{path.stem}.txt": caption.encode()}
    return files


def _stills(archive: Path, scratch: Path) -> dict[str, bytes]:
    """What the engine trains on instead of clips."""
    from providers.sandbox.clip_stills import stills_of_clips  # a video decoder, only where there are clips

    with zipfile.ZipFile(stills_of_clips(archive, scratch)) as stills:
        return {name: stills.read(name) for name in stills.namelist()}


def _pack(archive: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name, data in files.items():
            # Equal sets make equal zips, so that two files of one LoRA know each other: no times of day inside.
            packed.writestr(zipfile.ZipInfo(name), data)


def clock(seconds: float) -> str:
    """Time as progress bars write it."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def bar_line(name: str, step: int, steps: int, seconds: float, postfix: str) -> str:
    """A progress bar's line as tqdm draws it."""
    left = seconds / max(1, step) * (steps - step)
    filled = "#" * (10 * step // max(1, steps))
    each = seconds / max(1, step)
    timing = f"{clock(seconds)}<{clock(left)}, {each:5.2f}s/it, {postfix}"
    return f"{name}: {100 * step // max(1, steps):3d}%|{filled:<10}| {step}/{steps} [{timing}]"
