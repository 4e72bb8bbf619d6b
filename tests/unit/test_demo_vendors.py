"""The demo for each vendor: its manifest is sound, and everything in it can be had from the vendors it names."""

from __future__ import annotations

import pytest
import yaml

from domain import offers
from domain.errors import BadInput
from domain.registry import load_registry
from domain.seasons import SeasonManifest
from studio.demo.season import MANIFEST
from studio.demo.vendors import DEMO_VENDORS, demo_manifest
from tasks.manifest_check import season_of


def test_without_a_vendor_it_is_the_newcomers_template() -> None:
    assert demo_manifest(None) == MANIFEST


@pytest.mark.parametrize("vendor", DEMO_VENDORS)
def test_a_vendors_demo_is_a_rehearsal_of_its_own_that_its_vendors_can_make(vendor: str) -> None:
    manifest = SeasonManifest.model_validate(yaml.safe_load(demo_manifest(vendor)))
    assert manifest.season == f"neon-harbor-{vendor}"
    assert manifest.sandbox
    season, registry = season_of(manifest), load_registry()
    assert season.is_simulated
    for slot in manifest.slots:
        if slot.prompt is not None:
            model = offers.video_model(registry, season, slot.video_model)
            assert slot.seconds in (None, model.video and model.video.duration.nearest_seconds(slot.seconds or 5))
    for character in manifest.characters:
        for base in character.base_models if character.is_trained_here else ():
            assert offers.trainer(registry, season, base, character.training)
            assert offers.still_model(registry, season, base) or offers.filming_model(registry, season, base)


def test_a_vendor_that_no_demo_is_for_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="no demo for 'midjourney': write one of fal, replicate, runpod"):
        demo_manifest("midjourney")
