"""Captions by a vendor's captioner through the whole chain: bought once, cleaned, trained on, and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.captions import likeness_words
from domain.errors import OverBudget
from domain.jobs import JobState, Stage
from domain.training_sets import Coverage, CuratedSet, TrainingImage, TrainingSet
from flows.train_character import train_character
from studio.cli import run_command
from tasks.captioning import caption_training_set, plan_captions
from tasks.curation import curate_training_set
from tests.acceptance.season_homes import TRAINERS, Entry, Studio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CAPTIONERS = "fal-ai/moondream3-preview/caption"
SLOT: Entry = {"number": 1, "prompt": "@Mei nods", "video_model": "kling_o1_reference", "seconds": 3}


def season(studio: Studio, slug: str, **fields: object) -> tuple[Path, int]:
    """A season with one character whose captions are described; its manifest and the character's id."""
    cast = [studio.learned("mei", captions="described")]
    manifest = studio.write(slug, cast, [SLOT], **fields)
    return manifest, studio.ports.cast.named(studio.store(manifest), "Mei").id


def curated(studio: Studio, character_id: int) -> TrainingSet:
    return studio.ports.cast.training_set(curate_training_set(studio.ports, character_id))


def trained_captions(studio: Studio, training_set_id: int) -> Iterator[str]:
    """What the trainer was told, out of the zip it was sent."""
    (dataset,) = studio.ports.datasets.of_set(training_set_id)
    with zipfile.ZipFile(studio.ports.blobs.local_path(dataset.zip_sha256)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                yield archive.read(name).decode()


def test_pictures_are_described_once_and_those_that_are_refused_or_lost_keep_their_automatic_captions(
    studio: Studio,
) -> None:
    manifest, mei = season(studio, "described")
    # The first picture is refused, the answer for the second is lost and its list does not show it, and one dies once
    # and is tried again.
    faults = (
        f"submit:refuse=422@{CAPTIONERS}#1,submit:drop_after_accept@{CAPTIONERS}#2,job:fail=500@{CAPTIONERS}#3,"
        f"list:hide@{CAPTIONERS}"
    )
    # The trainings die at once: what they were sent is what counts here, and a second run then asks for it all again.
    with studio.faults(f"{faults},job:fail=500@{TRAINERS}"):
        (lora_id,) = asyncio.run(train_character("described", "Mei"))
    automatic = curated(studio, mei)
    lora = studio.ports.loras.get(lora_id)
    assert lora.training_set_id is not None
    described = studio.ports.cast.training_set(lora.training_set_id)
    assert studio.ports.cast.latest_training_set(mei) == described
    assert [image.sha256 for image in described.trained] == [image.sha256 for image in automatic.trained]

    pairs = list(zip(automatic.trained, described.trained, strict=True))
    kept = [image.name for before, image in pairs if image.caption == before.caption]
    assert len(kept) == 2
    assert [image.is_caption_own for _, image in pairs].count(True) == len(pairs) - 2
    (warning,) = set(described.warnings) - set(automatic.warnings)
    assert warning.startswith(f"The captioner described {len(pairs) - 2} of {len(pairs)} pictures; ")
    assert all(name in warning for name in kept)

    captions = list(trained_captions(studio, described.id))
    assert sum("Sandbox description: " in caption for caption in captions) == 0
    assert sum(caption.startswith("MEI_TRIGGER, Sandbox description, a square picture, ") for caption in captions) == (
        len(pairs) - 2
    )
    assert all(caption.startswith("MEI_TRIGGER, ") and not likeness_words(caption) for caption in captions)

    jobs = studio.jobs(manifest, Stage.CAPTIONS)
    states = [job.state for job in jobs]
    assert len(jobs) == len(pairs) + 1
    assert (states.count(JobState.SUCCEEDED), states.count(JobState.FAILED)) == (len(pairs) - 2, 2)
    assert states.count(JobState.SUBMISSION_UNKNOWN) == 1
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        assert run_command(["costs", "described"]) == 0
    assert "moondream_3_caption" in told.getvalue()

    bought = studio.posts()
    with studio.faults(f"list:hide@{CAPTIONERS}"):
        assert asyncio.run(train_character("described", "Mei")) == [lora_id]
    assert studio.ports.cast.latest_training_set(mei) == described
    assert studio.posts() == bought


def test_a_budget_too_small_for_the_captions_stops_before_anything_is_sent_and_a_larger_one_does_not(
    studio: Studio,
) -> None:
    before = studio.posts(CAPTIONERS), studio.posts(TRAINERS)
    _, poor = season(studio, "wordless", budget_usd=0.02)
    with pytest.raises(OverBudget, match="moondream_3_caption"):
        plan_captions(studio.ports, curated(studio, poor).id)
    _, rich = season(studio, "wordy", budget_usd=1)
    training_set = curated(studio, rich)
    planned = plan_captions(studio.ports, training_set.id)
    assert planned.job_keys == planned.open_job_keys == plan_captions(studio.ports, training_set.id).job_keys
    assert len(planned.job_keys) == len(training_set.trained)
    assert (studio.posts(CAPTIONERS), studio.posts(TRAINERS)) == before


def test_nothing_is_described_unless_the_manifest_asks_for_it(studio: Studio) -> None:
    manifest = studio.write("plain-words", [studio.learned("mei")], [SLOT])
    mei = studio.ports.cast.named(studio.store(manifest), "Mei").id
    image = TrainingImage(
        sha256="0" * 64,
        file_name="001.jpg",
        media_type="image/jpeg",
        caption="MEI_TRIGGER",
        source="a",
        width=9,
        height=9,
    )
    set_id = studio.ports.cast.keep_training_set(
        CuratedSet(
            character_id=mei,
            digest="plain",
            trained=(image,),
            held_out=(),
            left_out=(),
            coverage=Coverage(),
            warnings=(),
        )
    )
    assert plan_captions(studio.ports, set_id).job_keys == ()
    assert caption_training_set(studio.ports, set_id, ()) == set_id
