"""The demo's clips through a real ffmpeg: what comes out is what the storyboard says, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from domain.errors import BadInput, NotConfigured, Unavailable
from studio.demo.clips import Action, Reel, Shot, Take, draw_frames, film_reel
from studio.demo.season import MANIFEST, content_version, draw_demo

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

MOVING = Shot(
    place="rooftop",
    seconds=0.5,
    takes=(Take(who="tova", action=Action.RUN, x=(500, 700), yaw=70),),
    camera=((560, 380, 1.0), (700, 380, 1.1)),
    shake=2,
    whip=(0.2, 0.3),
    brightness=(0.6, 1.0),
)
STEADY = Shot(place="rain_street", seconds=0.25, takes=(Take(who="mei", action=Action.LOOK, framing="close"),))


def small_reel(name: str, *, sound: bool = False, portrait: bool = False) -> Reel:
    return Reel(
        file_name=name,
        shots=(MOVING, STEADY),
        width=180 if portrait else 320,
        height=320 if portrait else 180,
        frames_per_second=25 if portrait else 24,
        sound="anoisesrc=amplitude=0.1:seed=3:sample_rate=48000" if sound else None,
    )


@pytest.mark.parametrize(
    ("reel", "codec", "size", "rate"),
    [
        (small_reel("a.mp4", sound=True), "h264", (320, 180), 24),
        (small_reel("b.mp4", portrait=True), "h264", (180, 320), 25),
        (small_reel("c.webm"), "vp8", (320, 180), 24),
    ],
)
def test_a_clip_has_the_size_rate_length_and_sound_of_its_reel(
    reel: Reel, codec: str, size: tuple[int, int], rate: int, tmp_path: Path
) -> None:
    with av.open(str(film_reel(reel, tmp_path, FFMPEG))) as clip:
        video = clip.streams.video[0]
        assert (video.codec_context.name, (video.width, video.height)) == (codec, size)
        assert video.average_rate == rate
        assert bool(clip.streams.audio) == (reel.sound is not None)
        assert sum(1 for _ in clip.decode(video)) == round(0.5 * rate) + round(0.25 * rate)


def test_the_same_reel_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    reel = small_reel("a.mp4", sound=True)
    once, again = film_reel(reel, tmp_path, FFMPEG), film_reel(reel, tmp_path / "again", FFMPEG)
    assert once.read_bytes() == again.read_bytes()


def test_frames_move_within_a_shot_and_have_the_reels_size() -> None:
    frames = list(draw_frames(small_reel("a.mp4")))
    assert {frame.size for frame in frames} == {(320, 180)}
    assert len({frame.tobytes() for frame in frames[:12]}) == 12


def test_a_missing_ffmpeg_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="ffmpeg could not be started as '/no/such/ffmpeg'"):
        film_reel(small_reel("a.mp4"), tmp_path, "/no/such/ffmpeg")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_ffmpeg_is_quoted_and_nothing_is_left(tmp_path: Path) -> None:
    reel = small_reel("a.mp4").model_copy(update={"sound": "nosuchsource=1"})
    with pytest.raises(Unavailable, match=r"while encoding a\.mp4 \(.*No option name"):
        film_reel(reel, tmp_path, FFMPEG)
    assert list(tmp_path.iterdir()) == []


REELS = (small_reel("a.mp4"), small_reel("c.webm"))


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A folder with a small demo, drawn in this process."""
    return draw_demo(tmp_path / "demo", ffmpeg=FFMPEG, workers=1, reels=REELS).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_second_drawing_touches_nothing(demo: Path) -> None:
    before = times(demo)
    assert draw_demo(demo, ffmpeg="/no/such/ffmpeg", workers=1, reels=REELS) == demo / "season.yaml"
    assert times(demo) == before


def test_a_damaged_clip_and_a_lost_picture_are_drawn_again_alike(demo: Path) -> None:
    before = contents(demo)
    (demo / "clips/a.mp4").write_bytes(before["clips/a.mp4"][:100])
    (demo / "art/mei-front.png").unlink()
    draw_demo(demo, ffmpeg=FFMPEG, workers=1, reels=REELS)
    after = contents(demo)
    assert after.pop(".drawn.json") and before.pop(".drawn.json")
    assert after == before


def test_an_edited_manifest_is_kept_even_by_a_newer_version(demo: Path) -> None:
    (demo / "season.yaml").write_text("season: mine\n")
    stamp = demo / ".drawn.json"
    stamp.write_text(stamp.read_text().replace(content_version(), "older"))
    draw_demo(demo, ffmpeg=FFMPEG, workers=1, reels=REELS)
    assert (demo / "season.yaml").read_text() == "season: mine\n"
    assert content_version() in stamp.read_text()


def test_an_untouched_manifest_is_renewed_by_a_newer_version(demo: Path) -> None:
    (demo / "season.yaml").write_text("season: as-it-was\n")
    stamp = json.loads((demo / ".drawn.json").read_text())
    stamp["version"] = "older"
    stamp["files"]["season.yaml"] = hashlib.sha256(b"season: as-it-was\n").hexdigest()
    (demo / ".drawn.json").write_text(json.dumps(stamp))
    draw_demo(demo, ffmpeg=FFMPEG, workers=1, reels=REELS)
    assert (demo / "season.yaml").read_text() == MANIFEST


def test_two_workers_draw_the_same_as_one(demo: Path, tmp_path: Path) -> None:
    other = draw_demo(tmp_path / "other", ffmpeg=FFMPEG, workers=2, reels=REELS).parent
    one, two = contents(demo), contents(other)
    assert one.pop(".drawn.json") and two.pop(".drawn.json")
    assert one == two


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(BadInput, match="is a file: name a folder for the demo"):
        draw_demo(tmp_path / "demo", ffmpeg=FFMPEG)
