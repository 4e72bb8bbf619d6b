"""Curation on real tables: who is taken and who is not, what a person says, and the same set for the same material."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from psycopg.types.json import Jsonb

from domain.clips import ClipFacts, Frame
from domain.errors import BadInput
from domain.frame_rules import RULES_VERSION
from domain.imports import CharacterImport, ClipImport, ImageImport, SeasonImport
from domain.looks import Bars, Harvest, Look, LookMeasures
from domain.picture_keys import key_of_frame
from domain.pictures import Decision, Origin
from domain.seasons import SeasonManifest
from domain.training_sets import TrainingSet
from providers.ports import RgbImage
from studio.demo.cast import draw_character
from tasks.curation import consider, curate_training_set
from tasks.frames import harvest_clip
from tests.media_samples import make_clip
from tests.ports_for_tests import PortsForTests

SKIES = ("#dedee2", "#b9cfe0", "#e6dcc4", "#9fb8a8", "#c8b8c8", "#e0a888", "#7f96b4", "#cfd8c0")
GROUNDS = ("#8f8f99", "#3b5a6e", "#a07f42", "#4f6a58", "#6a5a6a", "#604f38", "#38506a", "#707a58")
SHOTS = (
    ("front", "full"),
    ("three_quarter", "bust"),
    ("profile", "bust"),
    ("front", "close_up"),
    ("three_quarter", "full"),
    ("front", "bust"),
)
CLIPS = ("one.mp4", "two.mp4")
WIDTH, HEIGHT = 1024, 640


@cache
def drawn(number: int, *people: str) -> bytes:
    """A frame: each person in a place of their own, before a sky and a ground that no other frame has."""
    view, framing = SHOTS[number % len(SHOTS)] if len(people) == 1 else ("front", "full")
    picture = Image.new("RGB", (WIDTH, HEIGHT), SKIES[number % len(SKIES)])
    ground = (0, 250 + 37 * (number % 7), WIDTH, HEIGHT)
    ImageDraw.Draw(picture).rectangle(ground, fill=GROUNDS[(3 * number) % len(GROUNDS)])
    room = WIDTH // max(1, len(people))
    for place, who in enumerate(people):
        figure = draw_character(who, view, "calm", 560, framing=framing, background=None)
        picture.paste(figure, (place * room + (room - 560) // 2 + 23 * (number % 5) - 40, HEIGHT - 560), figure)
    return np.asarray(picture).tobytes()


def picture_of(number: int, *people: str) -> RgbImage:
    return np.frombuffer(drawn(number, *people), np.uint8).reshape(HEIGHT, WIDTH, 3)


class Stage:
    """A season whose clips are harvested already: each frame is what the test says it shows."""

    def __init__(self, ports: PortsForTests) -> None:
        self.ports = ports
        self.season_id = 0
        self.character_id = 0

    def play(
        self, frames: dict[str, list[tuple[str, ...]]], stills: list[tuple[str, ...]] | None = None, **entry: object
    ) -> Stage:
        manifest = SeasonManifest.model_validate(
            {"season": "harbor", "budget_usd": "60", "characters": [{"name": "Mei", "kind": "illustrated", **entry}]}
        ).with_trigger_words()
        digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in frames}
        facts = ClipFacts(
            duration_seconds=10,
            width=WIDTH,
            height=HEIGHT,
            frames_per_second=25,
            video_codec="h264",
            has_audio=False,
            size_bytes=1,
        )
        self.season_id = self.ports.seasons.store(
            SeasonImport(
                manifest=manifest,
                sha256="0" * 64,
                is_simulated=True,
                clips=tuple(ClipImport(sha256=d, source_name=name, facts=facts) for name, d in digests.items()),
                characters=(
                    CharacterImport(
                        entry=manifest.characters[0],
                        lora="auto",
                        clip_sha256s=tuple(digests.values()),
                        images=tuple(self._still(number, people) for number, people in enumerate(stills or [])),
                    ),
                ),
                slots=(),
                warnings=(),
            )
        )
        self.character_id = self.ports.cast.named(self.season_id, "Mei").id
        drawing = 0
        for clip in self.ports.cast.clips(self.character_id):
            shown = frames[clip.source_name]
            self._harvest(clip.id, [(drawing + i, people) for i, people in enumerate(shown)])
            drawing += len(shown)
        return self

    def curate(self) -> TrainingSet:
        return self.ports.cast.training_set(curate_training_set(self.ports, self.character_id))

    def names(self, *people: str) -> set[str]:
        """The names of all frames that show just these people."""
        return {name for name, shown in self.shown.items() if shown == people}

    def _still(self, number: int, people: tuple[str, ...]) -> ImageImport:
        data = self.ports.media.png_bytes(picture_of(100 + number, *people))
        return ImageImport(
            role="training",
            sha256=self.ports.blobs.put_bytes(data, "image/png"),
            source_name=f"still-{number}.png",
            width=WIDTH,
            height=HEIGHT,
            media_type="image/png",
        )

    def _harvest(self, clip_id: int, shown: list[tuple[int, tuple[str, ...]]]) -> None:
        frames, looks = [], []
        for place, (number, people) in enumerate(shown):
            image = picture_of(number, *people)
            measured = self.ports.media.measure_image(image)
            measures = LookMeasures(
                at_seconds=0.5 * place,
                is_keyframe=True,
                sharpness=measured.sharpness,
                softness=0.2,
                noise=0,
                brightness=measured.brightness,
                contrast=0.6,
                hash64=measured.hash64,
                signature=(0,) * 48,
                change=0,
                bend=1,
                jump=1,
            )
            looks.append(Look(measures=measures, shot=0, reason="", width=WIDTH, height=HEIGHT, thumbnail="t.jpg"))
            frames.append(
                Frame(
                    clip_id=clip_id,
                    at_seconds=0.5 * place,
                    sha256=self.ports.blobs.put_bytes(self.ports.media.jpeg_bytes(image, 95), "image/jpeg"),
                    width=WIDTH,
                    height=HEIGHT,
                    sharpness=measured.sharpness,
                    brightness=measured.brightness,
                    hash64=measured.hash64,
                    is_kept=True,
                    reason="",
                    media_type="image/jpeg",
                )
            )
        facts = ClipFacts(
            duration_seconds=10, width=WIDTH, height=HEIGHT, frames_per_second=25, video_codec="h264", has_audio=False,
            size_bytes=1,
        )  # fmt: skip
        harvest = Harvest(facts=facts, looks=tuple(looks), decoded_frames=len(looks), frame_count=250)
        self.ports.cast.keep_harvest(clip_id, RULES_VERSION, harvest, frames)
        stored = self.ports.cast.frames(clip_id)
        self.shown.update({frame.name: people for frame, (_, people) in zip(stored, shown, strict=True)})

    @property
    def shown(self) -> dict[str, tuple[str, ...]]:
        return self.__dict__.setdefault("_shown", {})


@pytest.fixture
def stage(ports: PortsForTests) -> Stage:
    return Stage(ports)


ALONE = [("mei",)] * 6
FEW = {"min_images": 4}


def taken(curated: TrainingSet) -> set[str]:
    return {image.name for image in (*curated.trained, *curated.held_out)}


def test_somebody_else_is_left_out_and_said_so(stage: Stage) -> None:
    curated = stage.play({"one.mp4": [*ALONE, ("rui",)], "two.mp4": [*ALONE[:4], ("rui",), ("rui",)]}, **FEW).curate()
    assert not taken(curated) & stage.names("rui")
    assert taken(curated) <= stage.names("mei")
    reasons = {one.name: one.reason for one in curated.left_out}
    assert {reasons[name] for name in stage.names("rui")} == {"somebody else"}
    assert "Left out because somebody else is in it: 3 pictures." in curated.warnings


def test_of_two_people_apart_the_one_is_cut_out(stage: Stage) -> None:
    curated = stage.play({"one.mp4": ALONE, "two.mp4": [*ALONE[:3], ("mei", "rui"), ("rui",)]}, **FEW).curate()
    (both,) = stage.names("mei", "rui")
    image = next(image for image in (*curated.trained, *curated.held_out) if image.name == both)
    assert image.made_from is not None
    assert image.cut is not None
    assert image.cut.right < 0.75 * WIDTH
    assert (image.width, image.height) == (image.cut.width, image.cut.height)
    cut_out = stage.ports.media.load_image(stage.ports.blobs.local_path(image.sha256))
    assert cut_out.shape == (image.height, image.width, 3)


def test_the_same_material_gives_the_same_set(stage: Stage) -> None:
    stage.play({"one.mp4": ALONE, "two.mp4": ALONE[:4]}, **FEW)
    first = curate_training_set(stage.ports, stage.character_id)
    assert curate_training_set(stage.ports.beside(), stage.character_id) == first


def test_what_a_person_drops_is_out_and_what_they_keep_is_in(stage: Stage) -> None:
    stage.play({"one.mp4": ALONE, "two.mp4": [*ALONE[:4], ("rui",)]}, [("mei",)], **FEW)
    before = stage.curate()
    victim = next(image for image in before.trained if image.at_seconds is not None)
    (stranger,) = stage.names("rui")
    clip = stage.ports.cast.clips(stage.character_id)[1]
    at_seconds = next(f.at_seconds for f in stage.ports.cast.frames(clip.id) if f.name == stranger)
    first = next(c for c in stage.ports.cast.clips(stage.character_id) if c.source_name == victim.source)
    stage.ports.decisions.decide(
        stage.character_id, key_of_frame(first.id, victim.at_seconds or 0.0), Decision.DROP, "director"
    )
    stage.ports.decisions.decide(stage.character_id, key_of_frame(clip.id, at_seconds), Decision.KEEP, "director")
    after = stage.curate()
    assert after.id != before.id
    assert victim.name not in taken(after)
    assert stranger in taken(after)
    assert next(one.reason for one in after.left_out if one.name == victim.name) == "you dropped it"


def test_too_few_pictures_are_refused_with_the_way_to_see_them(stage: Stage) -> None:
    stage.play({"one.mp4": [("mei",)] * 3, "two.mp4": [("rui",)]})
    with pytest.raises(BadInput) as refused:
        curate_training_set(stage.ports, stage.character_id)
    assert refused.value.message.startswith("Mei: 3 usable images of 4 found, at least 10 are needed")
    assert refused.value.message.endswith('onmodel dataset harbor "Mei"')
    considered = consider(stage.ports, stage.character_id)
    assert len(considered.usable) == 3
    assert [one.reason for one in considered.left_out] == ["somebody else"]


def test_two_people_equally_often_are_not_guessed_between_until_a_still_says_who(stage: Stage) -> None:
    half = {"one.mp4": [("mei",), ("rui",)] * 3, "two.mp4": [("rui",), ("mei",)] * 3}
    stage.play(half, **FEW)
    with pytest.raises(BadInput, match="Two people are about equally often in these clips"):
        curate_training_set(stage.ports, stage.character_id)
    stage.shown.clear()
    curated = stage.play(half, [("mei",)], **FEW).curate()
    assert taken(curated) <= stage.names("mei") | {"s1"}
    assert len(taken(curated)) >= 5


def test_pictures_this_project_made_itself_are_marked_counted_and_warned_about(stage: Stage) -> None:
    stage.play({"one.mp4": ALONE}, [("mei",)], **FEW)
    (still,) = stage.ports.cast.stills(stage.character_id, "training")
    lora = stage.ports.loras.create(
        stage.ports.cast.get(stage.character_id),
        "flux-1-dev",
        trainer="given",
        training_set_id=None,
        images_count=0,
        created_by="test",
    )
    with stage.ports.database.transaction() as db:
        db.execute(
            """INSERT INTO character_reference_images (lora_id, character_id, image_url, sha256, prompt, image_type)
               VALUES (%s, %s, 'file:///x', %s, 'p', 'frontal')""",
            (lora.id, stage.character_id, still.sha256),
        )
    curated = stage.curate()
    made_here = [image.name for image in (*curated.trained, *curated.held_out) if image.origin is Origin.GENERATED]
    assert made_here == ["s1"]
    assert any("generated by this project itself" in warning for warning in curated.warnings)


def test_a_frame_that_was_dropped_comes_back_in_full_when_a_person_wants_it(
    ports: PortsForTests, tmp_path: Path
) -> None:
    path = make_clip(tmp_path / "a.mp4", seconds=2, size=(640, 512), keyframe_every=5)
    sha256 = ports.blobs.put_file(path, "video/mp4")
    manifest = SeasonManifest.model_validate(
        {"season": "harbor", "budget_usd": "60", "characters": [{"name": "Mei", "kind": "other", "min_images": 1}]}
    ).with_trigger_words()
    facts = ports.media.probe_clip(path)
    season_id = ports.seasons.store(
        SeasonImport(
            manifest=manifest,
            sha256="0" * 64,
            is_simulated=True,
            clips=(ClipImport(sha256=sha256, source_name="a.mp4", facts=facts),),
            characters=(CharacterImport(entry=manifest.characters[0], lora="auto", clip_sha256s=(sha256,), images=()),),
            slots=(),
            warnings=(),
        )
    )
    character = ports.cast.named(season_id, "Mei")
    (clip,) = ports.cast.clips(character.id)
    kept = harvest_clip(ports, clip.id)
    assert kept == sum(frame.is_kept for frame in ports.cast.frames(clip.id))
    dropped = [frame for frame in ports.cast.frames(clip.id) if not frame.is_kept]
    assert dropped
    assert all(frame.sha256 is None and frame.thumbnail_sha256 is not None for frame in dropped)
    ports.decisions.decide(character.id, key_of_frame(clip.id, dropped[0].at_seconds), Decision.KEEP, "director")
    curated = ports.cast.training_set(curate_training_set(ports, character.id))
    assert dropped[0].name in taken(curated)
    (again,) = [frame for frame in ports.cast.frames(clip.id) if frame.name == dropped[0].name]
    assert again.sha256 is not None
    assert ports.media.load_image(ports.blobs.local_path(again.sha256)).shape == (512, 640, 3)


def test_a_clip_is_harvested_once_whatever_it_gave(ports: PortsForTests, tmp_path: Path, stage: Stage) -> None:
    stage.play({"one.mp4": ALONE})
    (clip,) = ports.cast.clips(stage.character_id)
    # Its file is not in the store at all: only what was harvested before can answer.
    assert harvest_clip(ports, clip.id) == len(ALONE)
    with ports.database.transaction() as db:
        db.execute("UPDATE harvests SET rules_version = rules_version - 1")
    with pytest.raises(BadInput):
        harvest_clip(ports, clip.id)


def test_a_set_that_was_stored_before_pictures_had_names_is_still_read(ports: PortsForTests, stage: Stage) -> None:
    stage.play({"one.mp4": ALONE[:1]})
    old = {
        "sha256": "ab" * 32,
        "file_name": "001.png",
        "media_type": "image/png",
        "caption": "MEIMEI_01, soft light",
        "source": "one.mp4",
        "at_seconds": 0.5,
        "sharpness": 200.0,
        "width": 960,
        "height": 540,
    }
    with ports.database.transaction() as db:
        db.execute(
            """INSERT INTO training_sets (character_id, digest, manifest, trained_count, held_out_count)
               VALUES (%s, 'old', %s, 1, 0)""",
            (stage.character_id, Jsonb({"trained": [old], "held_out": []})),
        )
    stored = ports.cast.latest_training_set(stage.character_id)
    assert stored is not None
    assert [image.caption for image in stored.trained] == ["MEIMEI_01, soft light"]
    assert (stored.left_out, stored.coverage.gaps, stored.trained[0].name) == ((), (), "")


def test_the_bars_of_a_clip_are_those_its_looks_agree_on(ports: PortsForTests, stage: Stage) -> None:
    stage.play({"one.mp4": ALONE})
    (clip,) = ports.cast.clips(stage.character_id)
    assert ports.cast.bars(clip.id) == Bars()
    with ports.database.transaction() as db:
        barred = Jsonb({"left": 0, "top": 70, "right": 0, "bottom": 70})
        db.execute("UPDATE frames SET measures = jsonb_set(measures, '{bars}', %s) WHERE at_seconds < 2", (barred,))
    # Two looks of six, at night, do not show them; their pictures were cut all the same.
    assert ports.cast.bars(clip.id) == Bars(top=70, bottom=70)
