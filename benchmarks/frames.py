"""How long choosing the 20 best frames takes beside plain decoding: `python -m benchmarks.frames [--quick]`.

Makes its clips itself (`frame_clips.py`, kept in `--folder`, so that a second run begins at once) and runs, each in a
process of its own and all of them within the same minutes: ffmpeg decoding everything to nothing with two threads,
ffmpeg with keyframes only, OpenCV and PyAV taking every 15th frame, and `harvest_clip`. OpenCV and PyAV choose as one
would at first: the largest variance of the Laplacian, 0.5 s apart, dHash more than 8 bits apart.

Wall and CPU seconds are of the whole process, its start included; of `--runs` runs the best counts. On a busy machine
trust the ratio of CPU seconds, not that of the wall. What was chosen is held against the truth of the drawn clips.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from benchmarks.frame_clips import RATE, SCENES, Kind, kinds, make_clip, make_long_clip, shows_the_same, truth_at
from domain.records import Record
from providers.media_harvest import harvest_clip

say = partial(print, flush=True)
WANTED = 20
EVERY_FRAMES = 15
USUAL_GOP, USUAL_SHARE = 60, 0.30
WORST_SHARE = 1.10
MOST_MB = 400
FEWEST_SCENES = 10

METHODS = ("ffmpeg decode", "ffmpeg keyframes", "OpenCV every 15th", "PyAV every 15th", "ours")


class Run(Record):
    """What one process took, and the seconds of the frames it chose (none for ffmpeg)."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    chosen: tuple[float, ...] = ()


class Quality(Record):
    """What was chosen, held against the truth."""

    scenes: int
    blurred: int
    duplicates: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a bar of ours is missed."""
    options = _parser().parse_args(arguments)
    if options.one:
        _print_choice(options.one, Path(options.clip))
        return 0
    folder = Path(options.folder) if options.folder else Path(tempfile.gettempdir()) / "onmodel-frame-clips"
    missed: list[str] = []
    for kind in kinds(is_quick=options.quick):
        missed += _compare(kind, make_clip(kind, folder), options.runs, METHODS)
        if not options.quick and kind.codec == "libx264" and kind.gop in (60, 250):
            missed += _compare(kind, make_long_clip(make_clip(kind, folder)), 1, ("ffmpeg decode", "ours"))
    say("\nEvery bar is met." if not missed else "\nMissed:\n  " + "\n  ".join(missed))
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="H.264 with a GOP of 60 alone")
    parser.add_argument("--runs", type=int, default=2, help="of each method, one after the other; the best counts")
    parser.add_argument("--folder", help="where the clips are kept (about 4 GB in all)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--clip", help=argparse.SUPPRESS)
    return parser


def _compare(kind: Kind, clip: Path, runs: int, methods: Sequence[str]) -> list[str]:
    """Run all methods in turn, `runs` times over; print their lines, give back the bars that ours missed."""
    say(f"\n{clip.name}: {clip.stat().st_size / 1e6:.0f} MB, keyframes at most {kind.gop} frames apart")
    say(f"  {'':18}{'wall s':>8}{'CPU s':>8}{'wall ×':>8}{'CPU ×':>8}{'MB':>6}{'scenes':>9}{'blurred':>9}{'twice':>7}")
    taken: dict[str, list[Run]] = {method: [] for method in methods}
    for _ in range(runs):
        for method in methods:
            taken[method].append(_measured(method, clip))
    best = {method: _best(found) for method, found in taken.items()}
    pure = best["ffmpeg decode"]
    for method, run in best.items():
        wall, cpu = run.wall_seconds / pure.wall_seconds, run.cpu_seconds / pure.cpu_seconds
        line = f"  {method:18}{run.wall_seconds:8.2f}{run.cpu_seconds:8.2f}{wall:8.2f}{cpu:8.2f}{run.peak_mb:6.0f}"
        if run.chosen:
            quality = _quality(run.chosen)
            line += f"{quality.scenes:6} /{SCENES:2}{quality.blurred:9}{quality.duplicates:7}"
            line += "" if len(run.chosen) == WANTED else f"   ({len(run.chosen)} frames)"
        say(line)
    return [f"{clip.name}: {sentence}" for sentence in _missed(kind, best["ours"], pure)]


def _missed(kind: Kind, ours: Run, pure: Run) -> list[str]:
    share = ours.wall_seconds / pure.wall_seconds
    most_share = USUAL_SHARE if kind.gop == USUAL_GOP else WORST_SHARE
    quality = _quality(ours.chosen)
    bars = {
        f"{share:.2f} of pure decode, allowed {most_share}": share <= most_share,
        f"{ours.peak_mb:.0f} MB, allowed {MOST_MB}": ours.peak_mb <= MOST_MB,
        f"{quality.scenes} scenes, wanted {FEWEST_SCENES}": quality.scenes >= FEWEST_SCENES,
        f"{quality.blurred} blurred frames": quality.blurred == 0,
        f"{quality.duplicates} duplicate pairs": quality.duplicates == 0,
        f"{len(ours.chosen)} frames chosen": len(ours.chosen) == WANTED,
    }
    return [sentence for sentence, is_met in bars.items() if not is_met]


def _quality(chosen: Sequence[float]) -> Quality:
    moments = [truth_at(at) for at in chosen]
    return Quality(
        scenes=len({moment.scene for moment in moments}),
        blurred=sum(moment.is_blurred for moment in moments),
        duplicates=sum(shows_the_same(one, other) for one, other in combinations(moments, 2)),
    )


def _best(runs: Sequence[Run]) -> Run:
    fastest = min(runs, key=lambda run: run.wall_seconds)
    return fastest.model_copy(
        update={"cpu_seconds": min(run.cpu_seconds for run in runs), "peak_mb": max(run.peak_mb for run in runs)}
    )


def _measured(method: str, clip: Path) -> Run:
    """One method in a process of its own. CPU seconds and memory as the system counted them for it."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "fatal", "-nostdin", "-threads", "2"]
    commands = {
        "ffmpeg decode": [*ffmpeg, "-i", str(clip), "-an", "-f", "null", "-"],
        "ffmpeg keyframes": [*ffmpeg, "-skip_frame", "nokey", "-i", str(clip), "-an", "-f", "null", "-"],
    }
    ours = [sys.executable, "-m", "benchmarks.frames", "--one", method, "--clip", str(clip)]
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(commands.get(method, ours), stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode != 0:
        raise SystemExit(f"{method} ended with {process.returncode} on {clip}")
    return Run(
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
        chosen=tuple(json.loads(said)) if said else (),
    )


def _print_choice(method: str, clip: Path) -> None:
    """The child's part: choose, write the pictures, print the seconds of what was chosen."""
    with tempfile.TemporaryDirectory() as folder:
        if method == "ours":
            looks = harvest_clip(clip, Path(folder), WANTED).looks
            chosen = [look.measures.at_seconds for look in looks if look.is_kept]
        else:
            readers: dict[str, Callable[[Path], Any]] = {"OpenCV every 15th": _by_opencv, "PyAV every 15th": _by_pyav}
            chosen = _chosen_plainly(readers[method](clip), Path(folder))
    say(json.dumps(chosen))


def _by_opencv(clip: Path) -> Any:
    import cv2  # only this method's process needs it

    capture = cv2.VideoCapture(str(clip))
    index = 0
    while capture.grab():
        if index % EVERY_FRAMES == 0:
            yield index / RATE, capture.retrieve()[1][:, :, ::-1]
        index += 1


def _by_pyav(clip: Path) -> Any:
    import av

    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index % EVERY_FRAMES == 0:
                yield float(frame.time), frame.to_ndarray(format="rgb24")


def _chosen_plainly(frames: Any, folder: Path) -> list[float]:
    """The plain way: everything sampled is held as a file, the sharpest that are apart and not alike are taken."""
    from PIL import Image

    found: list[tuple[float, float, NDArray[Any]]] = []
    for at, pixels in frames:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.save(folder / f"{at:.3f}.jpg", quality=95, subsampling=0)
        grey = np.asarray(picture.convert("L").resize((480, 270), Image.Resampling.BOX), np.float32)
        around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
        tiny = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
        found.append((float(around.var()), at, tiny[:, :-1] > tiny[:, 1:]))
    chosen: list[tuple[float, NDArray[Any]]] = []
    for _, at, bits in sorted(found, key=lambda look: -look[0]):
        if all(abs(at - other) >= 0.5 and int((bits != theirs).sum()) > 8 for other, theirs in chosen):
            chosen.append((at, bits))
    return sorted(at for at, _ in chosen[:WANTED])


if __name__ == "__main__":
    sys.exit(main())
