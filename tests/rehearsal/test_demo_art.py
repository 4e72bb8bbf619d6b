"""The demo's drawings: people told apart from afar, the same every time, and a manifest that fits the files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml
from PIL import Image, ImageChops

from domain.errors import BadInput
from studio.demo import poses, season
from studio.demo.cast import CAST, draw_character, random_design
from studio.demo.clips import draw_frames
from studio.demo.designs import FACES, Outfit, blinking
from studio.demo.figures import draw_figure
from studio.demo.ink import Sheet, ellipse, points, smooth, tube
from studio.demo.scenes import PLACES, paint_scene
from studio.demo.storyboard import REELS


def thumbnail(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=float)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(thumbnail(a) - thumbnail(b)).mean())


def test_a_character_is_drawn_the_same_every_time() -> None:
    assert draw_character("mei", size=200).tobytes() == draw_character("Mei Kobayashi", size=200).tobytes()


@pytest.mark.parametrize("framing", ["full", "bust", "close_up"])
def test_a_picture_has_the_size_that_was_asked_for(framing: str) -> None:
    for size in (97, 256):
        picture = draw_character("rui", size=size, framing=framing)
        assert (picture.size, picture.mode) == ((size, size), "RGB")


def test_without_a_background_only_the_person_is_opaque() -> None:
    picture = draw_character("dario", size=160, background=None)
    assert picture.mode == "RGBA"
    assert picture.getpixel((0, 0)) == (0, 0, 0, 0)
    assert picture.getchannel("A").getpixel((80, 80)) == 255


@pytest.mark.parametrize("view", list(poses.VIEWS))
@pytest.mark.parametrize("name", list(CAST))
def test_every_view_shows_the_whole_person_within_the_picture(name: str, view: str) -> None:
    box = draw_character(name, view, size=200, background=None).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert left > 0 and top > 0 and right < 200 and bottom < 200
    assert bottom - top > 0.75 * 200


def test_every_expression_is_another_face() -> None:
    faces = {draw_character("tova", "front", name, 220, framing="close_up").tobytes() for name in FACES}
    assert len(faces) == len(FACES)


def test_blinking_changes_nothing_but_the_eyes() -> None:
    def bust(is_blinking: bool) -> Image.Image:
        sheet = Sheet((-1.0, -4.4, 1.0, -2.4), 100)
        face = blinking(FACES["calm"]) if is_blinking else FACES["calm"]
        draw_figure(sheet, CAST["mei"], face=face)
        return sheet.finish()

    box = ImageChops.difference(bust(True).convert("RGB"), bust(False).convert("RGB")).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert right - left < 80 and bottom - top < 30


def test_an_open_coat_changes_less_than_another_person_does() -> None:
    mei = draw_character("mei", size=200)
    opened = draw_character("mei", size=200, outfit=Outfit(is_open=True, fade=0.7))
    other = min(difference(mei, draw_character(name, size=200)) for name in ("rui", "tova", "dario"))
    assert 0 < difference(mei, opened) < other / 2


def test_no_two_of_the_cast_look_alike_from_afar() -> None:
    pictures = [draw_character(name, size=200) for name in CAST]
    for k, one in enumerate(pictures):
        for another in pictures[k + 1 :]:
            assert difference(one, another) > 6


@pytest.mark.parametrize("action", [poses.walk, poses.run, poses.cheer])
def test_somebody_moving_comes_down_to_the_ground_and_never_sinks_below_it(action: object) -> None:
    lowest = []
    for step in range(8):
        sheet = Sheet((-2.5, -5.0, 2.5, 1.0), 40, oversampling=2)
        draw_figure(sheet, CAST["mei"], pose=action(60.0, step / 8))  # type: ignore[operator]
        box = sheet.finish().getbbox()
        assert box is not None
        lowest.append(box[3] / 40 - 5.0)
    assert -0.15 < max(lowest) < 0.25


def test_an_unknown_name_view_expression_or_framing_is_refused_with_what_to_write() -> None:
    for arguments, sentence in (
        ({"character": "meii"}, "Nobody in the demo's cast is called 'meii': write one of mei, rui, tova, dario."),
        ({"character": "mei", "view": "back"}, "View 'back' is not known: write one of front, three_quarter, profile."),
        ({"character": "mei", "framing": "wide"}, "Framing 'wide' is not known: write one of full, bust, close_up."),
    ):
        with pytest.raises(BadInput, match=re.escape(sentence)):
            draw_character(**arguments)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Expression 'bored' is not known: write one of calm, happy"):
        draw_character("mei", expression="bored")


def test_a_seed_always_gives_the_same_new_person() -> None:
    assert random_design(5) == random_design(5)


def test_new_people_are_told_apart_from_each_other_and_from_the_cast() -> None:
    people = [draw_character(design, size=96) for design in [*CAST.values(), *map(random_design, range(12))]]
    distances = [difference(a, b) for k, a in enumerate(people) for b in people[k + 1 :]]
    assert min(distances) > 2.5


def test_any_seed_can_be_drawn_in_any_view() -> None:
    for seed in range(24):
        view = list(poses.VIEWS)[seed % 3]
        assert draw_character(random_design(seed), view, "smile", 48, background=None).getbbox() is not None


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_painted_the_same_every_time(place: str) -> None:
    once, again = paint_scene(place), paint_scene(place)
    assert once.picture.size == (1280, 720)
    assert once.picture.tobytes() == again.picture.tobytes()


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(BadInput, match="Place 'moon' is not known: write one of pier"):
        paint_scene("moon")


def test_a_shape_is_filled_with_its_colour_and_framed_by_a_darker_line() -> None:
    sheet = Sheet((0, 0, 1, 1), 60)
    sheet.part(ellipse(0.5, 0.5, 0.3, 0.3), (200, 80, 40), shade=0)
    picture = sheet.finish()
    assert picture.getpixel((30, 30)) == (200, 80, 40, 255)
    edge = picture.getpixel((30, 11))
    assert isinstance(edge, tuple) and edge[0] < 120
    assert picture.getpixel((2, 2)) == (0, 0, 0, 0)


def test_a_shape_outside_the_sheet_leaves_it_empty() -> None:
    sheet = Sheet((0, 0, 1, 1), 20)
    sheet.part(ellipse(5, 5, 1, 1), (1, 2, 3))
    sheet.inside(ellipse(5, 5, 1, 1), [(ellipse(5, 5, 1, 1), (1, 2, 3))])
    sheet.veil(ellipse(-5, 5, 1, 1), (1, 2, 3), 0.5)
    assert sheet.finish().getbbox() is None
    assert sheet.finish_trimmed()[0].size == (1, 1)


def test_a_curve_goes_through_its_control_points() -> None:
    control = points((0, 0), (1, 2), (3, 1), (4, 4))
    for closed in (True, False):
        curve = smooth(control, closed=closed)
        assert all(np.abs(curve - corner).sum(axis=1).min() < 1e-9 for corner in control)


def test_a_tube_is_as_wide_as_its_radii_say() -> None:
    outline = tube(points((0, 0), (0, 1), (0, 2)), [0.3, 0.3], has_round_start=True)
    assert outline[:, 0].min() == pytest.approx(-0.3) and outline[:, 0].max() == pytest.approx(0.3)
    assert outline[:, 1].min() == pytest.approx(-0.3) and outline[:, 1].max() == pytest.approx(2.3)


def clips_of(name: str) -> list[str]:
    block = re.search(rf"- name: {name}\n(.*?)\n\n", season.MANIFEST, re.DOTALL)
    assert block is not None
    return re.findall(r"clips/([\w.-]+)", block.group(1))


@pytest.mark.parametrize("name", ["Mei Kobayashi", "Rui Salgado", "Tova Lind"])
def test_the_clips_of_a_trained_character_give_fourteen_frames_that_differ(name: str) -> None:
    reels = {reel.file_name: reel for reel in REELS}
    kept: list[np.ndarray] = []
    assert len(clips_of(name)) >= 3
    for clip in clips_of(name):
        for frame in draw_frames(reels[clip], every=reels[clip].frames_per_second // 2):
            small = np.asarray(frame.convert("L").resize((9, 8), Image.Resampling.LANCZOS), dtype=int)
            bits = (small[:, 1:] > small[:, :-1]).ravel()
            is_new = all(int((bits != other).sum()) > 8 for other in kept)
            if is_new and np.asarray(frame.convert("L")).mean() > 25:
                kept.append(bits)
            if len(kept) == 14:
                return  # more of them would prove nothing more
    pytest.fail(f"{len(kept)} frames differ")


def test_the_demo_runs_about_fifty_seconds_in_ten_to_twelve_clips() -> None:
    assert 10 <= len(REELS) <= 12
    assert 45 <= sum(reel.seconds for reel in REELS) <= 60


def test_the_manifest_names_only_files_that_are_drawn_and_all_clips() -> None:
    named = set(re.findall(r"\b((?:clips|art)/[\w.-]+)", season.MANIFEST))
    assert {f"clips/{reel.file_name}" for reel in REELS} == {name for name in named if name.startswith("clips/")}
    assert {name for name in named if name.startswith("art/")} <= {f"art/{name}" for name in season.STILLS}


def test_the_manifest_names_the_cast_and_leaves_one_slot_open() -> None:
    told = yaml.safe_load(season.MANIFEST)
    assert [person["name"] for person in told["characters"]] == [design.name for design in CAST.values()]
    assert [slot["number"] for slot in told["slots"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert all("video" in slot or slot["prompt"].count("@") for slot in told["slots"])
