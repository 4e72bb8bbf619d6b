"""A run on clips that this project did not draw: other containers, codecs, shapes and rates, with and without sound.

ffmpeg's own sources make them (fractals, the game of life, a test pattern). On real films the same was done by hand.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from providers import media_pictures
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.sandbox.launcher import ensure_sandbox
from tests.command_runs import Machine, own_machine

CLIPS = {
    # A fractal that is flown into, as a phone films it: portrait, HEVC, an odd rate.
    "phone.mp4": "-f lavfi -i mandelbrot=s=540x960:r=30000/1001:end_scale=0.1 -t 3 -c:v libx265 "
    "-x265-params log-level=none -preset ultrafast -pix_fmt yuv420p -tag:v hvc1",
    # The same as an editor delivers it: QuickTime, ProRes 4:2:2, uncompressed sound.
    "editor.mov": "-f lavfi -i mandelbrot=s=640x640:r=25:start_x=-1.2 -f lavfi -i sine=440 -t 3 "
    "-c:v prores -c:a pcm_s16le",
    # As the web has it: WebM, VP9, no sound, a size that is not divisible by 16.
    "web.webm": "-f lavfi -i life=s=602x534:r=12:mold=10:ratio=0.3:death_color=#c83232:life_color=#00ff00 -t 3 "
    "-c:v libvpx-vp9 -deadline realtime -cpu-used 8",
    # Old and small: AVI, MPEG-4, MP3.
    "old.avi": "-f lavfi -i testsrc2=s=352x288:r=15 -f lavfi -i sine=220 -t 2 -c:v mpeg4 -q:v 5 -c:a libmp3lame",
}
SEASON = """\
season: outside
budget_usd: 20
characters:
  - {name: Fractal, kind: other, min_images: 4, training: {steps: 200}, clips: [phone.mp4, editor.mov]}
  - {name: Somebody, kind: person, lora: none, clips: [web.webm]}
slots:
  - {number: 1, video: phone.mp4}
  - {number: 2, video: editor.mov}
  - {number: 3, video: web.webm}
  - {number: 4, video: old.avi}
  - {number: 5, prompt: "@Fractal unfolds"}
  - {number: 6, prompt: "@Somebody crosses the street", video_model: kling_v25_turbo}
"""
WON = (1, 2, 3, 4)


@pytest.fixture
def machine(server_url: str) -> Iterator[Machine]:
    """A machine with the clips; its sandbox makes small videos."""
    with own_machine(server_url) as machine:
        for name, recipe in CLIPS.items():
            command = [find_ffmpeg(), "-nostdin", "-hide_banner", "-loglevel", "error", *recipe.split()]
            subprocess.run([*command, str(machine.folder / name)], check=True, timeout=120)
        ensure_sandbox(machine.home, more_arguments=("--max-video-height", "240"))
        yield machine


def test_clips_of_any_make_are_learned_from_and_assembled(machine: Machine, prefect_url: str) -> None:
    ended = machine.onmodel("run", machine.write(SEASON), "--json", PREFECT_API_URL=prefect_url)
    assert ended.exit_code in (0, 5), ended.err
    assert ended.sentences == []
    document = ended.document
    states = {slot["number"]: slot["state"] for slot in document["slots"]}
    assert states == dict.fromkeys(WON, "won") | {5: "done", 6: "done"}
    (lora,) = next(one for one in document["characters"] if one["name"] == "Fractal")["loras"]
    assert lora["status"] in ("ready", "failed")
    assert lora["reason"].endswith(".")

    results = Path(document["folder"])
    tools = FfmpegMediaTools(find_ffmpeg())
    season = tools.probe_clip(results / "season.mp4")
    assert season.has_audio
    assert (season.width, season.height) == (1280, 720)
    assert season.duration_seconds == pytest.approx(3 + 3 + 3 + 2 + 5 + 5, abs=1.0)
    assert sorted(path.name for path in (results / "clips").iterdir()) == [f"slot-{n:02d}.mp4" for n in range(1, 7)]
    report = (results / "report.html").read_text()
    assert "Fractal" in report
    assert "Somebody" in report
    assert lora["status"] in report.lower()


def test_a_picture_like_noise_becomes_a_jpeg() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    data = media_pictures.jpeg_bytes(noise, 92)
    assert Image.open(io.BytesIO(data)).size == (800, 600)
    assert len(data) > 800 * 600
