"""more steps fit better, bad data fits worse, no steps give a dead LoRA, bad zips are refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from safetensors import safe_open

from domain.errors import BadTrainingSet, OnModelError
from providers.sandbox.engine.layout import LAYOUTS, read_lora
from providers.sandbox.engine.training import train_lora

RED_SCARF = ((236, 196, 168), (40, 34, 44), (52, 84, 140), (206, 40, 44))
YELLOW_COAT = ((190, 140, 104), (150, 150, 156), (214, 160, 40), (214, 160, 40))


def draw_frame(look: Sequence[tuple[int, int, int]], number: int) -> Image.Image:
    """A flat person in the middle of one of several plain places."""
    skin, hair, coat, scarf = look
    sky = [(120, 170, 210), (60, 56, 90), (220, 180, 150), (90, 120, 100)][number % 4]
    picture = Image.new("RGB", (384, 384), sky)
    d = ImageDraw.Draw(picture)
    d.rectangle([0, 300, 384, 384], fill=(sky[0] // 2, sky[1] // 2, sky[2] // 2))
    x, u = 192 + (number * 37) % 60 - 30, 34 + (number * 5) % 8
    d.rectangle([x - u, 120 + 2 * u, x + u, 380], fill=(40, 40, 56))
    d.rectangle([x - 1.4 * u, 100 + u, x + 1.4 * u, 100 + 5 * u], fill=coat)
    d.ellipse([x - u, 70 - u, x + u, 110 + u], fill=hair)
    d.ellipse([x - 0.8 * u, 90 - u, x + 0.8 * u, 104 + u], fill=skin)
    d.rectangle([x - u, 100 + u, x + u, 118 + u], fill=scarf)
    return picture


def write_zip(path: Path, pictures: Sequence[Image.Image], captions: Sequence[str] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(pictures):
            data = io.BytesIO()
            picture.save(data, "JPEG", quality=90)
            archive.writestr(f"{number:02d}.jpg", data.getvalue())
        for number, caption in enumerate(captions):
            archive.writestr(f"{number:02d}.txt", caption)
    return path


def train(
    zip_path: Path,
    steps: int,
    *,
    base: str = "flux-1-dev",
    learning_rate: float | None = None,
    rank: int = 4,
    name: str = "out",
) -> float:
    return train_lora(
        zip_path,
        base=base,
        trigger_word="MEI_01",
        steps=steps,
        learning_rate=learning_rate,
        rank=rank,
        out=zip_path.with_name(f"{name}.safetensors"),
    )


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    return write_zip(folder / "set.zip", [draw_frame(RED_SCARF, k) for k in range(4)])


@pytest.fixture(scope="module")
def loss_after(small_set: Path) -> dict[int, float]:
    """The loss after so many steps at the usual rate; the LoRAs are called `at0`, `at40` and `at400`."""
    return {steps: train(small_set, steps, name=f"at{steps}") for steps in (0, 40, 400)}


def test_more_steps_always_fit_better(loss_after: dict[int, float]) -> None:
    assert loss_after[0] == pytest.approx(1.0)
    assert loss_after[0] > loss_after[40] > loss_after[400]
    assert loss_after[400] < 0.15


def test_no_steps_leave_every_b_at_zero_and_a_at_random(small_set: Path, loss_after: dict[int, float]) -> None:
    assert 0 in loss_after
    with safe_open(small_set.with_name("at0.safetensors"), framework="numpy") as lora:
        for name in lora.keys():  # noqa: SIM118 a safetensors file is no dict
            tensor = lora.get_tensor(name)
            assert tensor.any() == name.endswith("lora_A.weight")


@pytest.mark.parametrize(("base", "hidden"), [("flux-1-dev", 3072), ("wan-22-t2v-a14b", 5120)])
def test_the_file_has_the_architectures_names_and_shapes(small_set: Path, base: str, hidden: int) -> None:
    train(small_set, 40, base=base, rank=16, name=base)
    path = small_set.with_name(f"{base}.safetensors")
    with safe_open(path, framework="numpy") as lora:
        metadata, names = lora.metadata(), set(lora.keys())
        shapes = {tuple(lora.get_slice(n).get_shape()) for n in names}
        values = [lora.get_tensor(n) for n in names]
    assert shapes == {(16, hidden), (hidden, 16)}
    assert all(v.dtype == np.float16 and np.isfinite(v).all() and v.any() for v in values)
    assert len(values) == 2 * len(LAYOUTS[base].modules)
    assert metadata["sandbox"] == "true"
    assert metadata["ss_base_model_version"] == LAYOUTS[base].metadata_name
    if base == "flux-1-dev":
        assert "transformer.transformer_blocks.18.attn.to_out.0.lora_B.weight" in names
        assert "transformer.single_transformer_blocks.37.attn.to_v.lora_A.weight" in names
    else:
        assert "diffusion_model.blocks.39.self_attn.q.lora_B.weight" in names
    assert 15e6 < path.stat().st_size < 40e6


def test_a_set_of_two_characters_fits_worse_than_a_set_of_one(loss_after: dict[int, float], tmp_path: Path) -> None:
    looks = [RED_SCARF, YELLOW_COAT]
    mixed = write_zip(tmp_path / "mixed.zip", [draw_frame(looks[k % 2], k) for k in range(4)])
    assert train(mixed, 400) > 1.5 * loss_after[400]


def test_a_timid_learning_rate_undertrains_and_a_wild_one_misses(small_set: Path, loss_after: dict[int, float]) -> None:
    assert train(small_set, 400, learning_rate=1e-6) > 0.9
    assert train(small_set, 400, learning_rate=1.0) > loss_after[400] + 0.1


def test_blurred_pictures_are_learned_blurred(small_set: Path, loss_after: dict[int, float], tmp_path: Path) -> None:
    assert 400 in loss_after
    blurred = [draw_frame(RED_SCARF, k).filter(ImageFilter.GaussianBlur(7)) for k in range(4)]
    train(write_zip(tmp_path / "soft.zip", blurred), 400, name="soft")
    edges = []
    for path in (small_set.with_name("at400.safetensors"), tmp_path / "soft.safetensors"):
        subject = read_lora(path, "flux-1-dev").subject(0)
        edges.append(float(np.percentile(np.abs(np.diff(subject.colour.mean(axis=-1), axis=0)), 99)))
    assert edges[1] < 0.5 * edges[0]


def test_equal_inputs_give_equal_files(small_set: Path) -> None:
    train(small_set, 30, name="one")
    train(small_set, 30, name="two")
    one, two = (small_set.with_name(f"{n}.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_progress_counts_up_to_the_last_step_with_a_falling_loss(small_set: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    train_lora(
        small_set,
        base="flux-1-dev",
        trigger_word="MEI_01",
        steps=100,
        learning_rate=None,
        rank=4,
        out=tmp_path / "p.safetensors",
        on_progress=lambda step, steps, loss: seen.append((step, steps, loss)),
    )
    assert [s for s, _, _ in seen] == sorted({s for s, _, _ in seen})
    assert seen[-1][:2] == (100, 100)
    assert seen[-1][2] < 0.5 * seen[0][2]


def test_more_pictures_than_ranks_share_atoms(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "many.zip", [draw_frame(RED_SCARF, k) for k in range(6)])
    loss = train_lora(
        path, base="flux-1-dev", trigger_word="X", steps=300, learning_rate=None, rank=3, out=tmp_path / "l.safetensors"
    )
    lora = read_lora(tmp_path / "l.safetensors", "flux-1-dev")
    assert loss < 0.5
    assert (lora.strengths > 0.9).all()


def refused(path: Path) -> str:
    with pytest.raises(BadTrainingSet) as caught:
        train(path, 10)
    assert not path.with_name("out.safetensors").exists()
    return caught.value.message


def test_three_pictures_are_too_few_and_four_are_enough(tmp_path: Path) -> None:
    pictures = [draw_frame(RED_SCARF, k) for k in range(4)]
    assert "3 pictures" in refused(write_zip(tmp_path / "three.zip", pictures[:3]))
    assert train(write_zip(tmp_path / "four.zip", pictures), 10) < 1


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_text("hello")
    assert "set.zip cannot be read as a zip" in refused(path)


def test_a_zip_cut_short_is_refused(small_set: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.zip"
    path.write_bytes(small_set.read_bytes()[:-4000])
    assert "cannot be read as a zip" in refused(path)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", [draw_frame(RED_SCARF, k) for k in range(4)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("broken.png", b"not a picture")
    assert "broken.png cannot be read" in refused(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("huge.png", bytes(70 * 1024**2))
    assert "would unpack to" in refused(path)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("1", (12000, 12000)).save(data, "PNG")
    path = write_zip(tmp_path / "set.zip", [draw_frame(RED_SCARF, k) for k in range(4)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bomb.png", data.getvalue())
    assert "bomb.png" in refused(path)


def test_pictures_without_any_subject_still_train(tmp_path: Path) -> None:
    blank = [Image.new("RGB", (300, 200), (90 + 20 * k, 120, 140)) for k in range(4)]
    assert train(write_zip(tmp_path / "blank.zip", blank), 100) < 0.6


def test_the_trainers_errors_survive_as_ours(tmp_path: Path) -> None:
    with pytest.raises(OnModelError):
        train(write_zip(tmp_path / "none.zip", []), 1)
