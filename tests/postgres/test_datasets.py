"""Datasets on real tables: built once, the same bytes for the same set, every file accounted for."""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domain.captions import Shown, write_caption
from domain.clips import ClipFacts, Frame
from domain.errors import BadInput, BadTrainingSet
from domain.looks import Harvest, Look, LookMeasures
from domain.pictures import Box, CaptionMode, Framing, Origin, View
from domain.training_sets import Coverage, CuratedSet, Dataset, TrainingImage
from tasks.dataset_export import export_dataset
from tasks.datasets import build_dataset
from tasks.importing import import_season
from tests.media_samples import drawn_frame, make_clip
from tests.ports_for_tests import PortsForTests, store_season
from tests.postgres.import_material import Write, mei_with

TRIGGER = "MEI_MEI_01"


def image_of(ports: PortsForTests, number: int, size: tuple[int, int] = (640, 512), **fields: object) -> TrainingImage:
    """A picture in the store and its entry in a set, with the caption that curation would give it."""
    picture = np.roll(drawn_frame(number, *size), 40 * number, axis=1)
    shown = Shown(surroundings=ports.cuts.surroundings(picture), framing=Framing.BUST, view=View.PROFILE)
    return TrainingImage.model_validate(
        {
            "sha256": ports.blobs.put_bytes(ports.media.png_bytes(picture), "image/png"),
            "file_name": f"{number:03d}.png",
            "media_type": "image/png",
            "caption": write_caption(TRIGGER, shown),
            "source": "good.mp4",
            "at_seconds": 0.5 * number,
            "width": size[0],
            "height": size[1],
            "name": f"f{number}",
            "framing": Framing.BUST,
            "view": View.PROFILE,
            "subject": Box(left=300, top=100, right=400, bottom=500),
            "rights": "made for this season",
            **fields,
        }
    )


def keep_set(ports: PortsForTests, character_id: int, *images: TrainingImage) -> int:
    return ports.cast.keep_training_set(
        CuratedSet(
            character_id=character_id,
            digest=hashlib.sha256(repr(images).encode()).hexdigest(),
            trained=images,
            held_out=(),
            left_out=(),
            coverage=Coverage(),
            warnings=(),
        )
    )


@pytest.fixture
def mei(ports: PortsForTests) -> int:
    """The only character of a season that has nothing else."""
    entry = {"name": "Mei", "trigger_word": TRIGGER}
    season_id = store_season(ports, "harbor", characters=[entry])
    return ports.cast.named(season_id, "Mei").id


@pytest.fixture
def set_id(ports: PortsForTests, mei: int) -> int:
    return keep_set(ports, mei, *(image_of(ports, number) for number in range(1, 6)))


def files_of(ports: PortsForTests, dataset: Dataset) -> dict[str, bytes]:
    with zipfile.ZipFile(ports.blobs.local_path(dataset.zip_sha256)) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        return {name: archive.read(name) for name in archive.namelist()}


def manifest_of(ports: PortsForTests, dataset: Dataset) -> dict[str, object]:
    read = json.loads(ports.blobs.read(dataset.manifest_sha256))
    assert isinstance(read, dict)
    return read


def test_a_vendor_gets_cropped_pictures_with_captions_and_nothing_else(ports: PortsForTests, set_id: int) -> None:
    dataset = ports.datasets.get(build_dataset(ports, set_id, "fal_flux_lora_fast"))
    files = files_of(ports, dataset)
    assert sorted(files) == [f"{n:03d}.{end}" for n in range(1, 6) for end in ("jpg", "txt")]
    assert (dataset.file_count, dataset.training_set_id) == (10, set_id)
    assert files["001.txt"].decode().startswith(f"{TRIGGER}, ")
    with Image.open(io.BytesIO(files["001.jpg"])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (576, 448))
        assert {part[1:3] for part in picture.layer} == {(1, 1)}  # type: ignore[attr-defined]


def test_the_manifest_accounts_for_every_file(ports: PortsForTests, set_id: int) -> None:
    dataset = ports.datasets.get(build_dataset(ports, set_id, "plain"))
    files, manifest = files_of(ports, dataset), manifest_of(ports, dataset)
    assert (manifest["season"], manifest["character"], manifest["trigger_word"]) == ("harbor", "Mei", TRIGGER)
    assert (manifest["trainer"], manifest["layout"]) == ("plain", "plain")
    items = manifest["items"]
    assert isinstance(items, list)
    for item in items:
        assert hashlib.sha256(files[item["file"]]).hexdigest() == item["sha256"]
        assert files[item["caption_file"]].decode() == item["caption"]
        assert (item["source"], item["rights"], item["origin"]) == ("good.mp4", "made for this season", "clip")
        assert item["crop"]["right"] - item["crop"]["left"] >= item["width"]
    assert items[0]["time_code"] == "00:00:00.500"


def test_a_dataset_is_built_once_and_built_anew_it_has_the_same_bytes(ports: PortsForTests, set_id: int) -> None:
    first = build_dataset(ports, set_id, "kohya")
    blobs = set(ports.blobs.digests())
    assert build_dataset(ports, set_id, "kohya") == first
    with ports.database.transaction() as db:
        db.execute("DELETE FROM datasets")
    again = ports.datasets.get(build_dataset(ports, set_id, "kohya"))
    assert again.id != first
    assert set(ports.blobs.digests()) == blobs
    assert list(ports.scratch().iterdir()) == []


def test_kohya_gets_its_folder_tags_and_text_and_ai_toolkit_its_own(ports: PortsForTests, set_id: int) -> None:
    files = files_of(ports, ports.datasets.get(build_dataset(ports, set_id, "kohya")))
    (subset,) = tomllib.loads(files["dataset.toml"].decode())["datasets"][0]["subsets"]
    folder = subset["image_dir"].removeprefix("./")
    assert f"{folder}/001.jpg" in files
    assert files[f"{folder}/001.txt"].decode().startswith(f"{TRIGGER}, upper body, from side, ")
    assert json.loads(files["manifest.json"])["counts"]["items"] == 5
    files = files_of(ports, ports.datasets.get(build_dataset(ports, set_id, "ai_toolkit")))
    assert {f"{TRIGGER}/001.jpg", f"{TRIGGER}/005.txt", "dataset.yaml", "manifest.json"} <= set(files)
    assert [one.layout.split("@")[0] for one in ports.datasets.of_set(set_id)] == ["kohya", "ai_toolkit"]


def test_own_captions_are_kept_as_they_are_where_others_become_tags(ports: PortsForTests) -> None:
    entry = {"name": "Mei", "trigger_word": TRIGGER, "captions": CaptionMode.OWN}
    season_id = store_season(ports, "harbor", characters=[entry])
    own = f"{TRIGGER} on a long pier at night in the pouring rain"
    images = (image_of(ports, 1, caption=own, is_caption_own=True), image_of(ports, 2))
    set_id = keep_set(ports, ports.cast.named(season_id, "Mei").id, *images)
    files = files_of(ports, ports.datasets.get(build_dataset(ports, set_id, "kohya")))
    said = [data.decode() for name, data in sorted(files.items()) if name.endswith(".txt")]
    assert said[0] == own
    assert "upper body" in said[1]


def test_a_picture_cropped_much_closer_is_captioned_by_what_is_left_of_it(ports: PortsForTests, mei: int) -> None:
    far = image_of(ports, 1, (1600, 1200), subject=Box(left=100, top=100, right=180, bottom=260))
    near = image_of(ports, 1, (1600, 1200), file_name="002.png", subject=Box(left=100, top=100, right=700, bottom=1100))
    files = files_of(ports, ports.datasets.get(build_dataset(ports, keep_set(ports, mei, far, near), "plain")))
    assert files["001.txt"].decode() != far.caption
    assert files["001.txt"].decode().startswith(f"{TRIGGER}, a picture from the waist up from the side, in ")
    assert files["002.txt"].decode() == near.caption


def test_a_picture_cut_to_leave_somebody_out_is_captioned_by_what_is_left_of_it(ports: PortsForTests) -> None:
    entry = {"name": "Mei", "trigger_word": TRIGGER, "captions": CaptionMode.OWN}
    mei = ports.cast.named(store_season(ports, "harbor", characters=[entry]), "Mei").id
    whole, part = image_of(ports, 1, (1600, 1200)), image_of(ports, 2)
    cut = part.model_copy(update={"caption": whole.caption, "made_from": whole.sha256})
    own = part.model_copy(update={"caption": f"{TRIGGER} alone on a pier", "file_name": "003.png"})
    files = files_of(ports, ports.datasets.get(build_dataset(ports, keep_set(ports, mei, cut, own), "plain")))
    assert files["002.txt"].decode() != whole.caption
    assert files["003.txt"].decode() == own.caption


def test_a_small_picture_is_left_out_with_its_size_and_the_others_stay(ports: PortsForTests, mei: int) -> None:
    images = [image_of(ports, number) for number in range(1, 5)]
    set_id = keep_set(ports, mei, *images, image_of(ports, 7, (480, 270), subject=None))
    dataset = ports.datasets.get(build_dataset(ports, set_id, "fal_flux_lora_fast"))
    assert dataset.file_count == 8
    assert "good.mp4 at 3.5 s is 480×270; the smallest bucket needs 512×512" in dataset.warnings[0]


def test_too_few_usable_pictures_are_refused_naming_each(ports: PortsForTests, mei: int) -> None:
    images = [image_of(ports, number) for number in range(1, 4)]
    set_id = keep_set(ports, mei, *images, image_of(ports, 7, (480, 270), subject=None))
    with pytest.raises(BadTrainingSet, match=r"Mei: 3 of 4 pictures .* at least 4 are needed\. good\.mp4 at 3\.5 s is"):
        build_dataset(ports, set_id, "fal_flux_lora_fast")
    assert ports.datasets.of_set(set_id) == []


def test_alike_captions_and_pictures_of_our_own_making_are_warned_about(ports: PortsForTests, mei: int) -> None:
    caption = f"{TRIGGER} on a long pier at night in the rain"
    set_id = keep_set(
        ports, mei, image_of(ports, 1, caption=caption), image_of(ports, 2, caption=caption, origin=Origin.GENERATED)
    )
    dataset = ports.datasets.get(build_dataset(ports, set_id, "plain"))
    assert any(warning.startswith("f1 and f2 have the same caption") for warning in dataset.warnings)
    assert any(warning.startswith("1 of 2 was generated") for warning in dataset.warnings)


def test_an_unknown_layout_or_dataset_is_refused(ports: PortsForTests, set_id: int) -> None:
    with pytest.raises(BadInput, match="choose one of"):
        build_dataset(ports, set_id, "photoshop")
    with pytest.raises(BadInput, match="no dataset 41"):
        ports.datasets.get(41)


def test_a_dataset_is_exported_with_its_manifest_and_again_without_harm(
    ports: PortsForTests, set_id: int, tmp_path: Path
) -> None:
    dataset_id = build_dataset(ports, set_id, "plain")
    written = export_dataset(ports, dataset_id, tmp_path / "out")
    assert len(written) == 11
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["trainer"] == "plain"
    assert export_dataset(ports, dataset_id, tmp_path / "out") == written
    inside = export_dataset(ports, build_dataset(ports, set_id, "musubi"), tmp_path / "musubi")
    assert {path.relative_to(tmp_path / "musubi").parts[0] for path in inside} == {
        "images",
        "dataset.toml",
        "manifest.json",
    }


def test_an_export_never_touches_somebody_elses_files(ports: PortsForTests, set_id: int, tmp_path: Path) -> None:
    dataset_id = build_dataset(ports, set_id, "plain")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "003.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"003\.txt is there already with other content"):
        export_dataset(ports, dataset_id, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["003.txt"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "001.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(BadInput, match="is a link"):
        export_dataset(ports, dataset_id, tmp_path / "linked")
    assert not (tmp_path / "elsewhere.jpg").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(ports: PortsForTests, set_id: int, tmp_path: Path) -> None:
    for name in ("../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt"):
        bad = io.BytesIO()
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr(name, "evil")
        dataset_id = ports.datasets.keep(
            Dataset(
                id=0,
                training_set_id=set_id,
                layout=name,
                zip_sha256=ports.blobs.put_bytes(bad.getvalue(), "application/zip"),
                manifest_sha256=ports.blobs.put_bytes(b"{}", "application/json"),
                file_count=1,
                size_bytes=1,
            )
        )
        with pytest.raises(BadInput, match="would lie outside"):
            export_dataset(ports, dataset_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def look(at_seconds: float, shot: int) -> Look:
    measures = LookMeasures(
        at_seconds=at_seconds,
        is_keyframe=True,
        sharpness=200,
        softness=0.2,
        noise=1,
        brightness=0.5,
        contrast=0.5,
        hash64=int(at_seconds * 10),
        signature=(0,) * 48,
        change=0,
        bend=1,
        jump=1,
    )
    return Look(measures=measures, shot=shot, reason="", width=160, height=120, thumbnail="t.jpg")


def test_a_trainer_of_videos_gets_clips_cut_within_their_shots(
    ports: PortsForTests, write: Write, material: Path
) -> None:
    make_clip(material / "shots.mp4", seconds=5, rate="16")
    season_id = import_season(ports, write(characters=mei_with(clips=["shots.mp4"]), slots=[]))
    mei = ports.cast.named(season_id, "Mei Kobayashi")
    (clip,) = ports.cast.clips(mei.id)
    looks = [look(at, shot) for at, shot in ((0.5, 0), (1.0, 0), (2.5, 0), (3.0, 1), (3.5, 1), (4.0, 2), (4.5, 2))]
    facts = ClipFacts(
        duration_seconds=5,
        width=160,
        height=120,
        frames_per_second=16,
        video_codec="h264",
        has_audio=False,
        size_bytes=1,
    )
    frames = [
        Frame(
            clip_id=clip.id,
            at_seconds=one.measures.at_seconds,
            sha256="a" * 64,
            width=160,
            height=120,
            sharpness=200,
            brightness=0.5,
            hash64=one.measures.hash64,
            is_kept=True,
            reason="",
            shot=one.shot,
        )
        for one in looks
    ]
    ports.cast.keep_harvest(
        clip.id, 1, Harvest(facts=facts, looks=tuple(looks), decoded_frames=7, frame_count=80), frames
    )
    images = [
        image_of(ports, number, source="shots.mp4", at_seconds=at, name="", subject=None)
        for number, at in enumerate((1.0, 2.5, 3.0, 4.5), 1)
    ]
    still = image_of(ports, 9, source="art.png", at_seconds=None, name="s1", origin=Origin.STILL)
    set_id = keep_set(ports, mei.id, *images, still)
    dataset = ports.datasets.get(build_dataset(ports, set_id, "clips"))
    files, manifest = files_of(ports, dataset), manifest_of(ports, dataset)
    items = manifest["items"]
    assert isinstance(items, list)
    assert [(one["file"], one["stretch"]["frames"]) for one in items] == [("001.mp4", 37)]
    assert items[0]["stretch"]["from_seconds"] + 37 / 16 <= 2.5
    assert sorted(files) == ["001.mp4", "001.txt"]
    assert any("art.png is no frame of a clip" in warning for warning in dataset.warnings)
    assert any("at 3.0 s stands in a shot of 0.50 s" in warning for warning in dataset.warnings)
    text = files_of(ports, ports.datasets.get(build_dataset(ports, set_id, "musubi_clips")))["dataset.toml"].decode()
    assert tomllib.loads(text)["datasets"][0]["target_frames"] == [37]
