"""The sandbox's camera: playable clips of the length, size and rate asked for, that move what they were given."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domain.errors import JobFailed, Rejected
from providers.sandbox.engine.filming import film_elements, film_image, film_text
from providers.sandbox.engine.training import train_lora

FFMPEG: str = imageio_ffmpeg.get_ffmpeg_exe()
COAT = (236, 20, 200)


def draw_person(size: tuple[int, int], backdrop: tuple[int, int, int], coat: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", size, backdrop)
    d, x, u = ImageDraw.Draw(picture), size[0] / 2, size[1] / 10
    d.rectangle([x - 1.2 * u, 6 * u, x + 1.2 * u, 9.6 * u], fill=(40, 40, 60))
    d.rectangle([x - 1.6 * u, 3 * u, x + 1.6 * u, 7 * u], fill=coat)
    d.ellipse([x - u, 0.8 * u, x + u, 3.2 * u], fill=(230, 190, 160))
    return picture


@pytest.fixture
def still(tmp_path: Path) -> Path:
    draw_person((640, 360), (120, 150, 180), COAT).save(tmp_path / "still.png")
    return tmp_path / "still.png"


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as clip:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in clip.decode(video=0)]


def share_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - np.array(colour)).sum(axis=-1) < 90).mean())


def test_a_still_becomes_a_playable_clip_that_starts_with_it_and_moves(still: Path, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    film_image(
        image=still,
        prompt="she walks",
        seconds=1,
        width=320,
        height=180,
        frames_per_second=24,
        seed=3,
        ffmpeg=FFMPEG,
        out=out,
    )
    with av.open(str(out)) as clip:
        stream = clip.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 24
        assert "sandbox" in clip.metadata["comment"]
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    frames = frames_of(out)
    given = np.asarray(Image.open(still).resize((320, 180)))
    assert len(frames) == 24
    assert frames[0].shape == (180, 320, 3)
    assert np.abs(frames[0].astype(int) - given).mean() < 6
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 1
    assert share_of(frames[-1], COAT) > 0.5 * share_of(frames[0], COAT)


def test_elements_are_cut_from_their_pictures_and_set_into_one_scene(tmp_path: Path) -> None:
    green = (30, 200, 60)
    draw_person((500, 500), (200, 200, 196), COAT).save(tmp_path / "a.png")
    draw_person((500, 500), (150, 160, 170), green).save(tmp_path / "b.jpg", quality=95)
    out = tmp_path / "clip.mp4"
    pictures = [[tmp_path / "a.png"], [tmp_path / "b.jpg", tmp_path / "b.jpg"]]
    film_elements(
        elements=pictures,
        images=[],
        prompt="on the pier at dusk",
        seconds=0.5,
        width=480,
        height=270,
        frames_per_second=12,
        seed=1,
        ffmpeg=FFMPEG,
        out=out,
    )
    first = frames_of(out)[0]
    assert share_of(first[:, :240], COAT) > 0.03
    assert share_of(first[:, 240:], green) > 0.03
    assert share_of(first, (200, 200, 196)) < 0.05


def test_a_scene_picture_becomes_the_background(still: Path, tmp_path: Path) -> None:
    Image.new("RGB", (800, 800), (10, 120, 130)).save(tmp_path / "scene.png")
    out = tmp_path / "clip.mp4"
    film_elements(
        elements=[[still]],
        images=[tmp_path / "scene.png"],
        prompt="she waits",
        seconds=0.25,
        width=320,
        height=180,
        frames_per_second=8,
        seed=1,
        ffmpeg=FFMPEG,
        out=out,
    )
    assert share_of(frames_of(out)[0], (10, 120, 130)) > 0.3


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan 14B LoRA of the one in the magenta coat."""
    folder = tmp_path_factory.mktemp("lora")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for number in range(4):
            data = io.BytesIO()
            backdrop = (90 + 40 * number, 140, 200 - 30 * number)
            draw_person((360, 360), backdrop, COAT).save(data, "PNG")
            archive.writestr(f"{number}.png", data.getvalue())
    out = folder / "lora.safetensors"
    train_lora(
        folder / "set.zip",
        base="wan-22-t2v-a14b",
        trigger_word="ZORBA_7",
        steps=200,
        learning_rate=None,
        rank=4,
        out=out,
    )
    return out


def test_a_text_clip_draws_with_its_lora_for_exactly_the_frames_asked_for(lora: Path, tmp_path: Path) -> None:
    shares = []
    for loras in ([(lora, 1.0)], []):
        out = tmp_path / "clip.mp4"
        film_text(
            prompt="ZORBA_7 walks in the rain",
            loras=loras,
            frames=17,
            width=320,
            height=180,
            frames_per_second=16,
            seed=2,
            ffmpeg=FFMPEG,
            out=out,
        )
        frames = frames_of(out)
        assert len(frames) == 17
        shares.append(share_of(frames[8], COAT))
    assert shares[0] > 0.02
    assert shares[1] < 0.001


def test_a_still_is_filmed_with_whom_its_lora_holds_when_the_prompt_calls_them(lora: Path, tmp_path: Path) -> None:
    green, wall = (30, 200, 60), (120, 150, 180)
    draw_person((640, 360), wall, green).save(tmp_path / "still.png")
    out, first = tmp_path / "clip.mp4", []
    for prompt, scale in (("ZORBA_7 waits", 1.0), ("ZORBA_7 waits", 0.0), ("somebody waits", 1.0)):
        film_image(
            image=tmp_path / "still.png",
            prompt=prompt,
            loras=[(lora, scale)],
            base="wan-21-t2v-14b",
            seconds=0.25,
            width=320,
            height=180,
            frames_per_second=8,
            seed=3,
            ffmpeg=FFMPEG,
            out=out,
        )
        first.append(frames_of(out)[0])
    called, switched_off, not_called = first
    assert share_of(called, COAT) > 0.02
    assert share_of(called, green) < 0.001
    assert share_of(called, wall) > 0.3
    for plain in (switched_off, not_called):
        assert share_of(plain, COAT) < 0.001
        assert share_of(plain, green) > 0.02


def test_odd_sizes_are_brought_to_even_ones(still: Path, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    film_image(
        image=still, prompt="", seconds=0.2, width=161, height=91, frames_per_second=10, seed=1, ffmpeg=FFMPEG, out=out
    )
    assert frames_of(out)[0].shape == (90, 160, 3)


def test_a_picture_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(Rejected, match=r"x\.png cannot be read"):
        film_image(
            image=tmp_path / "x.png",
            prompt="",
            seconds=1,
            width=64,
            height=64,
            frames_per_second=8,
            seed=1,
            ffmpeg=FFMPEG,
            out=tmp_path / "o.mp4",
        )


def test_a_clip_of_no_frames_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="0 frames"):
        film_text(
            prompt="x",
            loras=(),
            seconds=0,
            width=64,
            height=64,
            frames_per_second=8,
            seed=1,
            ffmpeg=FFMPEG,
            out=tmp_path / "o.mp4",
        )


def test_a_failing_ffmpeg_is_reported_in_its_own_words(still: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="No such file or directory"):
        film_image(
            image=still,
            prompt="",
            seconds=0.5,
            width=64,
            height=64,
            frames_per_second=8,
            seed=1,
            ffmpeg=FFMPEG,
            out=tmp_path / "missing" / "o.mp4",
        )
