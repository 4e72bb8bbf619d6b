"""The season out of its clips, on real encoded clips of every kind; and which ffmpeg does it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import av
import numpy as np
import pytest

from domain.errors import BadInput
from providers.media import FfmpegMediaTools, find_ffmpeg
from providers.ports import SeasonClip
from tests.media_samples import is_red, loudness, make_clip


@pytest.fixture(scope="module")
def tools() -> FfmpegMediaTools:
    return FfmpegMediaTools(find_ffmpeg())


def shown_seconds(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


def mixed_clips(folder: Path) -> list[SeasonClip]:
    paths = [
        make_clip(folder / "landscape.mp4", rate="25", has_sound=True),
        make_clip(folder / "portrait.mov", rate="30", size=(90, 160), rotation=180),
        make_clip(folder / "ntsc.webm", rate="30000/1001", codec="libvpx-vp9", has_sound=True, seconds=0.7),
        make_clip(folder / "deep.mkv", rate="24", codec="libx265", pixel_format="yuv420p10le", size=(202, 114)),
        make_clip(folder / "square.mp4", rate="60", size=(97, 97), pixel_format="yuv444p", seconds=0.45),
    ]
    return [SeasonClip(slot_number=number, path=path) for number, path in enumerate(paths, 1)]


@pytest.mark.parametrize("rate", [24, 30])
def test_clips_of_any_size_rate_and_sound_become_one_even_season(
    tools: FfmpegMediaTools, tmp_path: Path, rate: int
) -> None:
    clips = mixed_clips(tmp_path)
    out = tmp_path / "made" / "season.mp4"
    facts = tools.assemble(clips, out, width=192, height=108, frames_per_second=rate)
    wanted = sum(tools.probe_clip(clip.path).duration_seconds for clip in clips)
    assert facts == tools.probe_clip(out)
    assert (facts.width, facts.height, facts.video_codec, facts.has_audio) == (192, 108, "h264", True)
    assert facts.frames_per_second == rate
    assert facts.duration_seconds == pytest.approx(wanted, abs=1 / rate)
    times = shown_seconds(out)
    assert times == pytest.approx([index / rate for index in range(len(times))], abs=1e-4)
    assert len(times) == round(facts.duration_seconds * rate)
    assert [path.name for path in out.parent.iterdir()] == ["season.mp4"]


def test_the_season_plays_in_a_browser(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    out = tmp_path / "season.mp4"
    tools.assemble(mixed_clips(tmp_path)[:2], out, width=192, height=108, frames_per_second=24)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that playing starts at once"
    with av.open(str(out)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert picture.codec_context.pix_fmt == "yuv420p"
        assert picture.codec_context.profile in ("High", "Main")
        assert (sound.codec_context.name, sound.codec_context.sample_rate, sound.codec_context.layout.name) == (
            "aac",
            48_000,
            "stereo",
        )
        packets = [packet for packet in container.demux() if packet.size]
        for stream in (picture, sound):
            stamps = [packet.dts for packet in packets if packet.stream_index == stream.index]
            assert all(a is not None and b is not None and a < b for a, b in itertools.pairwise(stamps))


def test_sound_stays_with_its_own_clip(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    loud = make_clip(tmp_path / "loud.mp4", seconds=0.5, has_sound=True, size=(64, 48))
    mute = make_clip(tmp_path / "mute.mp4", seconds=0.5, size=(64, 48))
    clips = [SeasonClip(slot_number=n, path=loud if n % 2 else mute) for n in range(1, 13)]
    out = tmp_path / "season.mp4"
    facts = tools.assemble(clips, out, width=64, height=48, frames_per_second=24)
    assert facts.duration_seconds == pytest.approx(6.0, abs=0.001)
    for number in range(12):
        level = loudness(out, number / 2 + 0.06, number / 2 + 0.44)
        assert level > 0.2 if number % 2 == 0 else level < 0.005, number


def test_a_portrait_clip_stands_between_black_bars_and_a_landscape_one_lies_between_them(
    tools: FfmpegMediaTools, tmp_path: Path
) -> None:
    tall = make_clip(tmp_path / "tall.mp4", size=(90, 160))
    wide = make_clip(tmp_path / "wide.mp4", size=(320, 80))
    out = tmp_path / "season.mp4"
    clips = [SeasonClip(slot_number=1, path=tall), SeasonClip(slot_number=2, path=wide)]
    tools.assemble(clips, out, width=320, height=180, frames_per_second=25)
    first, second = tools.frames_at(out, [0.5, 1.5])
    assert first[:, :100].max() < 20
    assert first[:, -100:].max() < 20
    assert is_red(first[45, 130])
    assert second[:40].max() < 20
    assert second[-40:].max() < 20
    assert is_red(second[70, 60])


@pytest.mark.parametrize("size", [(64, 48), (1280, 720)])
def test_colours_survive_the_assembly(tools: FfmpegMediaTools, tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_clip(tmp_path / "a.mp4", size=size, seconds=0.2)
    out = tmp_path / "season.mp4"
    tools.assemble([SeasonClip(slot_number=1, path=path)], out, width=size[0], height=size[1], frames_per_second=25)
    before, after = tools.frames_at(path, [0.1])[0], tools.frames_at(out, [0.1])[0]
    assert np.abs(before[12, 16].astype(int) - after[12, 16]).max() <= 6


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_clip_that_lost_its_tail_keeps_its_place_and_is_followed_on_time(
    tools: FfmpegMediaTools, tmp_path: Path, name: str
) -> None:
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    path = make_clip(
        tmp_path / name, seconds=2, size=(64, 48), codec=codec, has_sound=True, has_noise=True, is_index_first=True
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.75)])
    after = make_clip(tmp_path / "after.mp4", seconds=0.5, size=(64, 48), has_sound=True)
    clips = [SeasonClip(slot_number=n, path=p) for n, p in enumerate((path, after), 1)]
    facts = tools.assemble(clips, tmp_path / "season.mp4", width=64, height=48, frames_per_second=25)
    kept = tools.probe_clip(path).duration_seconds
    assert 1.0 < kept < 2.0
    assert facts.duration_seconds == pytest.approx(kept + 0.5, abs=0.041)
    assert is_red(tools.frames_at(tmp_path / "season.mp4", [kept + 0.1])[0][12, 16])


def test_the_same_clips_give_the_same_bytes(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    clips = mixed_clips(tmp_path)[:3]
    for name in ("one.mp4", "two.mp4"):
        tools.assemble(clips, tmp_path / name, width=64, height=48, frames_per_second=24)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_a_failed_assembly_leaves_the_last_good_season_alone(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    clips = mixed_clips(tmp_path)[:1]
    out = tmp_path / "out" / "season.mp4"
    tools.assemble(clips, out, width=64, height=48, frames_per_second=24)
    before = out.read_bytes()
    (tmp_path / "bad.mp4").write_text("no clip")
    with pytest.raises(BadInput, match=r"^Slot 7: .*bad\.mp4 is text"):
        tools.assemble(
            [*clips, SeasonClip(slot_number=7, path=tmp_path / "bad.mp4")],
            out,
            width=64,
            height=48,
            frames_per_second=24,
        )
    broken = FfmpegMediaTools("/bin/false")
    with pytest.raises(BadInput, match=r"^Slot 1: .*landscape\.mp4 could not be brought into the season"):
        broken.assemble(clips, out, width=64, height=48, frames_per_second=24)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["season.mp4"]


@pytest.mark.parametrize(
    ("width", "height", "rate", "names"),
    [
        (63, 48, 24, "width"),
        (64, 8, 24, "height"),
        (64, 9000, 24, "height"),
        (64, 48, 0, "rate"),
        (64, 48, 121, "rate"),
    ],
)
def test_a_season_that_no_player_shows_is_refused(
    tools: FfmpegMediaTools, tmp_path: Path, width: int, height: int, rate: int, names: str
) -> None:
    clips = [SeasonClip(slot_number=1, path=make_clip(tmp_path / "a.mp4", seconds=0.1))]
    with pytest.raises(BadInput, match=f"season's {names}"):
        tools.assemble(clips, tmp_path / "out.mp4", width=width, height=height, frames_per_second=rate)


def test_a_season_without_clips_is_refused(tools: FfmpegMediaTools, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no finished clip"):
        tools.assemble([], tmp_path / "out.mp4", width=64, height=48, frames_per_second=24)


# --- which ffmpeg ---


def program(folder: Path, version: str, encoders: str = "V libx264\\nA aac", status: int = 0) -> Path:
    folder.mkdir()
    script = folder / "ffmpeg"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-encoders*) printf "{encoders}\\n";; *) echo "ffmpeg version {version}";; esac\n'
        f"exit {status}\n"
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("version", ["4.4.2-0ubuntu0.22.04.1", "5.1.9-0+deb12u1", "n9.0.2-17-g2a57", "N-117-gabc"])
def test_the_machines_own_ffmpeg_is_used_when_it_is_new_enough(tmp_path: Path, version: str) -> None:
    own = program(tmp_path / "bin", version)
    assert find_ffmpeg(str(own.parent)) == str(own)


@pytest.mark.parametrize(
    ("version", "encoders", "status"),
    [
        ("4.3.8-0+deb11u1", "V libx264\\nA aac", 0),
        ("6.1", "A aac", 0),
        ("6.1", "V libx264\\nA aac", 1),
        ("odd", "V libx264\\nA aac", 0),
    ],
)
def test_an_old_crippled_or_broken_ffmpeg_gives_way_to_the_packaged_one(
    tmp_path: Path, version: str, encoders: str, status: int
) -> None:
    own = program(tmp_path / "bin", version, encoders, status)
    found = find_ffmpeg(str(own.parent))
    assert found != str(own)
    assert os.access(found, os.X_OK)


def test_without_an_own_ffmpeg_the_packaged_one_is_used(tmp_path: Path) -> None:
    assert os.access(find_ffmpeg(str(tmp_path)), os.X_OK)
