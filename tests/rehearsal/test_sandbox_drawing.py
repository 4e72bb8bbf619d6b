"""The sandbox's painter: with the LoRA and its trigger word the character appears, without either it does not."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domain.errors import Rejected
from providers.sandbox.engine.drawing import draw_still
from providers.sandbox.engine.layout import Expert
from providers.sandbox.engine.training import train_lora

COAT, HAT = (236, 20, 200), (20, 220, 60)  # colours that neither scenes nor passers-by have


def draw_frame(number: int) -> Image.Image:
    sky = [(120, 170, 210), (60, 56, 90), (220, 190, 160), (110, 120, 116)][number % 4]
    picture = Image.new("RGB", (400, 400), sky)
    d = ImageDraw.Draw(picture)
    x = 200 + (number % 3 - 1) * 20
    d.rectangle([x - 40, 240, x + 40, 385], fill=(50, 46, 60))
    d.rectangle([x - 60, 130, x + 60, 300], fill=COAT)
    d.ellipse([x - 36, 50, x + 36, 140], fill=(230, 190, 160))
    d.rectangle([x - 50, 40, x + 50, 76], fill=HAT)
    return picture


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LoRAs of one character: fully trained, half trained, not trained, of other bases, and the two of Wan 2.2."""
    folder = tmp_path_factory.mktemp("loras")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for number in range(4):
            data = io.BytesIO()
            draw_frame(number).save(data, "PNG")
            archive.writestr(f"{number}.png", data.getvalue())
    wanted: dict[str, tuple[str, int, Expert | None]] = {
        "full": ("flux-1-dev", 400, None),
        "half": ("flux-1-dev", 32, None),
        "dead": ("flux-1-dev", 0, None),
        "sdxl": ("sdxl", 400, None),
        "low": ("wan-22-i2v-a14b", 200, "low"),
        "high": ("wan-22-i2v-a14b", 200, "high"),
    }
    made = {name: folder / f"{name}.safetensors" for name in wanted}
    for name, (base, steps, expert) in wanted.items():
        train_lora(
            folder / "set.zip",
            base=base,
            trigger_word="ZORBA_7",
            steps=steps,
            learning_rate=None,
            rank=4,
            expert=expert,
            out=made[name],
        )
    return made


def drawn(
    out: Path,
    prompt: str,
    *used: tuple[Path, float],
    seed: int = 5,
    base: str = "flux-1-dev",
    faces: Sequence[Path] = (),
) -> NDArray[np.float64]:
    draw_still(prompt=prompt, seed=seed, width=384, height=384, loras=used, faces=faces, base=base, out=out)
    return np.asarray(Image.open(out), dtype=np.float64)


def share_of(picture: NDArray[np.float64], colour: tuple[int, int, int], within: float = 70) -> float:
    return float((np.abs(picture - np.array(colour)).sum(axis=-1) < within).mean())


@pytest.mark.parametrize(
    "prompt",
    [
        "portrait of ZORBA_7",
        "full body shot of ZORBA_7, standing",
        "profile view of zorba_7",
        "ZORBA_7 runs across the pier",
        "ZORBA_7 in a room, smiling",
    ],
)
def test_the_character_appears_in_every_view(loras: dict[str, Path], tmp_path: Path, prompt: str) -> None:
    picture = drawn(tmp_path / "a.jpg", prompt, (loras["full"], 1.0))
    assert share_of(picture, COAT) > 0.02
    assert share_of(picture, HAT) > 0.003


def test_without_lora_without_trigger_or_at_scale_zero_it_does_not(loras: dict[str, Path], tmp_path: Path) -> None:
    prompt = "full body shot of ZORBA_7, standing"
    for picture in (
        drawn(tmp_path / "none.jpg", prompt),
        drawn(tmp_path / "zero.jpg", prompt, (loras["full"], 0.0)),
        drawn(tmp_path / "dead.jpg", prompt, (loras["dead"], 1.0)),
        drawn(tmp_path / "other.jpg", "full body shot of a woman, standing", (loras["full"], 1.0)),
    ):
        assert share_of(picture, COAT) < 0.001


def test_a_dead_lora_draws_exactly_what_the_base_model_draws(loras: dict[str, Path], tmp_path: Path) -> None:
    prompt = "ZORBA_7 on the pier at night"
    dead, none = drawn(tmp_path / "d.jpg", prompt, (loras["dead"], 1.0)), drawn(tmp_path / "n.jpg", prompt)
    assert np.array_equal(dead, none)


def test_an_undertrained_lora_gives_a_faded_mixture(loras: dict[str, Path], tmp_path: Path) -> None:
    prompt = "full body shot of ZORBA_7, standing"
    near = [
        share_of(drawn(tmp_path / "x.jpg", prompt, (loras[name], 0.8)), COAT, within=200) for name in ("full", "half")
    ]
    clear = [share_of(drawn(tmp_path / "x.jpg", prompt, (loras[name], 0.8)), COAT) for name in ("full", "half")]
    assert clear[0] > 0.02
    assert clear[1] < 0.2 * clear[0]
    assert near[1] > 0.2 * near[0]


def test_equal_arguments_draw_the_same_and_another_seed_does_not(loras: dict[str, Path], tmp_path: Path) -> None:
    one = drawn(tmp_path / "1.jpg", "ZORBA_7 in the forest", (loras["full"], 1.0))
    two = drawn(tmp_path / "2.jpg", "ZORBA_7 in the forest", (loras["full"], 1.0))
    other = drawn(tmp_path / "3.jpg", "ZORBA_7 in the forest", (loras["full"], 1.0), seed=6)
    assert np.array_equal(one, two)
    assert np.abs(one - other).mean() > 2


def test_two_loras_stand_side_by_side(loras: dict[str, Path], tmp_path: Path) -> None:
    picture = drawn(tmp_path / "p.jpg", "ZORBA_7 twice in the city", (loras["full"], 1.0), (loras["full"], 1.0))
    assert share_of(picture[:, :192], COAT) > 0.01
    assert share_of(picture[:, 192:], COAT) > 0.01


def test_a_lora_of_another_base_is_rejected_with_the_reason(loras: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"wan_2\.2_14b.*flux\.1"):
        drawn(tmp_path / "p.jpg", "ZORBA_7", (loras["low"], 1.0))


def test_a_damaged_lora_is_rejected(loras: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(loras["full"].read_bytes()[:100_000])
    with pytest.raises(Rejected, match=r"cut\.safetensors cannot be read"):
        drawn(tmp_path / "p.jpg", "ZORBA_7", (cut, 1.0))


def test_another_base_is_drawn_with_its_own_loras(loras: dict[str, Path], tmp_path: Path) -> None:
    picture = drawn(tmp_path / "p.jpg", "ZORBA_7 on the pier", (loras["sdxl"], 1.0), base="sdxl")
    assert share_of(picture, COAT) > 0.02


def test_both_experts_files_draw_one_character_fully_and_one_alone_does_not(
    loras: dict[str, Path], tmp_path: Path
) -> None:
    prompt, base = "full body shot of ZORBA_7, standing", "wan-22-t2v-a14b"  # a Wan 14B LoRA says not for which one
    low, high = (loras["low"], 1.0), (loras["high"], 1.0)
    both = share_of(drawn(tmp_path / "b.jpg", prompt, low, high, base=base), COAT)
    one = share_of(drawn(tmp_path / "l.jpg", prompt, low, base=base), COAT)
    assert both > 0.02
    assert one < 0.2 * both
    assert share_of(drawn(tmp_path / "z.jpg", prompt, low, (loras["high"], 0.0), base=base), COAT) == one


def test_a_face_without_a_lora_is_drawn_into_the_prompts_scene(tmp_path: Path) -> None:
    draw_frame(0).save(tmp_path / "face.png")
    prompt, backdrop = "somebody on the pier at dusk", (120, 170, 210)
    with_face = drawn(tmp_path / "f.jpg", prompt, base="sdxl", faces=[tmp_path / "face.png"])
    without = drawn(tmp_path / "n.jpg", prompt, base="sdxl")
    assert share_of(with_face, COAT) > 0.02
    assert share_of(with_face, HAT) > 0.003
    assert share_of(without, COAT) < 0.001
    assert share_of(with_face, backdrop, within=20) < 0.05


def test_a_face_stands_beside_whom_the_lora_draws(loras: dict[str, Path], tmp_path: Path) -> None:
    draw_frame(0).save(tmp_path / "face.png")
    picture = drawn(tmp_path / "p.jpg", "ZORBA_7 in the city", (loras["full"], 1.0), faces=[tmp_path / "face.png"])
    assert share_of(picture[:, :192], COAT) > 0.01
    assert share_of(picture[:, 192:], COAT) > 0.01


def test_a_face_that_is_no_picture_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_text("nobody")
    with pytest.raises(Rejected, match=r"face\.png cannot be read"):
        drawn(tmp_path / "p.jpg", "somebody", faces=[tmp_path / "face.png"])


@pytest.mark.parametrize(("image_format", "kind"), [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_stills_have_the_size_and_format_asked_for_and_say_who_made_them(
    tmp_path: Path, image_format: str, kind: str
) -> None:
    out = tmp_path / "still"
    draw_still(prompt="a pier", seed=1, width=520, height=300, loras=(), out=out, image_format=image_format)
    with Image.open(out) as picture:
        assert (picture.format, picture.size) == (kind, (520, 300))
        assert picture.getexif()[0x0131] == "OnModel sandbox"


def test_an_unknown_format_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="bmp"):
        draw_still(prompt="x", seed=1, width=64, height=64, loras=(), out=tmp_path / "x", image_format="bmp")


def test_the_engine_never_loads_the_identity_scorer() -> None:
    code = (
        "import sys, providers.sandbox.engine.training, providers.sandbox.engine.filming; "
        "sys.exit('providers.vision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
