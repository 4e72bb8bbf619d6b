"""Proofs, templates and profiles on real tables, and what the matrix and a render read of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.characters import LoraStatus
from domain.errors import BadInput, OnModelError, Rejected, Unavailable
from domain.jobs import BlobRef, VendorRequest
from domain.model_rules import Model
from domain.profiles import Parameter, Target, WorkflowTemplate
from domain.proofs import Proof, Verdict, entry_sha256
from providers.postgres.profiles import keep_templates
from providers.vendor_ports import LiveSchema, LoraUse
from tasks.matrix import takes_lora, why_no_lora
from tasks.probing import plan_probe, read_schema
from tasks.profiles import profile_for, profiled_lora
from tasks.workflow_templates import import_template, set_profile
from tests.acceptance.standin_vendor import StandinVendor
from tests.commands_in_process import commands_on, onmodel
from tests.ports_for_tests import PortsForTests, new_database, settings_for_tests, store_season

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "own.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["1", 1]}, "_meta": {"title": "Positive"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "b", "clip": ["1", 1]}, "_meta": {"title": "Negative"}},
    "4": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["1", 0], "positive": ["2", 0]}},
    "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["4", 0]}},
}
TARGETS = ("prompt=title:Positive.text", "seed=class:KSampler.seed")


@pytest.fixture(scope="module")
def ports(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsForTests]:
    with new_database(server_url) as url:
        opened = PortsForTests(settings_for_tests(tmp_path_factory.mktemp("home"), url), {})
        yield opened
        opened.close()


@pytest.fixture
def tables(ports: PortsForTests) -> PortsForTests:
    """No proof, no profile and no template of anybody's."""
    with ports.database.transaction() as db:
        db.execute("DELETE FROM model_proofs")
        db.execute("DELETE FROM generation_profiles")
        db.execute("DELETE FROM video_workflow_templates WHERE NOT is_built_in")
    return ports


def proof_of(model: Model, verdict: Verdict, at: datetime = NOW, vendor: str = "fal", **fields: Any) -> Proof:
    facts = {
        "model_key": model.key,
        "vendor": vendor,
        "verdict": verdict,
        "detail": "as told",
        "registry_sha256": entry_sha256(model),
        "is_simulated": vendor == "sandbox",
        "proved_at": at,
    }
    return Proof.model_validate(facts | fields)


# --- proofs ---


def test_a_proof_comes_back_as_it_was_kept(tables: PortsForTests) -> None:
    model = tables.registry.model("flux_lora")
    kept = proof_of(model, Verdict.WORKS, difference=0.125, cost_usd=Decimal("0.0700"), job_keys=("a", "b"))
    tables.proofs.add(kept)
    assert tables.proofs.newest("flux_lora", "fal") == kept
    assert tables.proofs.newest("flux_lora", "sandbox") is None


def test_the_newest_proof_of_each_model_at_each_vendor_counts_and_the_others_stay(tables: PortsForTests) -> None:
    flux, wan = tables.registry.model("flux_lora"), tables.registry.model("wan_22_t2v_lora")
    tables.proofs.add(proof_of(flux, Verdict.IGNORED, NOW))
    tables.proofs.add(proof_of(flux, Verdict.WORKS, NOW - timedelta(minutes=1)))  # by a clock that is behind
    tables.proofs.add(proof_of(flux, Verdict.INCONCLUSIVE, NOW, vendor="sandbox"))
    tables.proofs.add(proof_of(wan, Verdict.REFUSED, NOW))
    found = {(proof.model_key, proof.vendor): proof.verdict for proof in tables.proofs.all_newest()}
    assert found == {
        ("flux_lora", "fal"): Verdict.WORKS,
        ("flux_lora", "sandbox"): Verdict.INCONCLUSIVE,
        ("wan_22_t2v_lora", "fal"): Verdict.REFUSED,
    }
    assert tables.proofs.count("flux_lora", "fal") == 2


def test_the_matrix_believes_the_registry_until_a_probe_says_otherwise(tables: PortsForTests) -> None:
    model = tables.registry.model("flux_lora")
    assert takes_lora(tables, model, "fal")
    tables.proofs.add(proof_of(model, Verdict.IGNORED, NOW))
    assert "ignored it when it was asked on 2026-11-20" in (why_no_lora(tables, model, "fal") or "")
    assert takes_lora(tables, model, "sandbox"), "a stand-in has proofs of its own"
    changed = model.model_copy(update={"endpoint": "fal-ai/flux-lora/v2"})
    assert takes_lora(tables, changed, "fal"), "a proof of an older entry proves nothing"
    tables.proofs.add(proof_of(model, Verdict.INCONCLUSIVE, NOW + timedelta(hours=1)))
    assert takes_lora(tables, model, "fal")


def test_a_model_without_a_lora_field_says_the_registrys_reason(tables: PortsForTests) -> None:
    assert "Kling loads no LoRA" in (why_no_lora(tables, tables.registry.model("kling_v21"), "fal") or "")


def test_only_a_ready_lora_of_the_base_and_of_the_same_reality_proves_a_model(tables: PortsForTests) -> None:
    character = tables.cast.of_season(store_season(tables, "with-lora"))[0]

    def make(base: str, status: LoraStatus) -> int:
        lora = tables.loras.create(
            character, base, trainer="t", training_set_id=None, images_count=1, created_by="test", sha256="b" * 64
        )
        tables.loras.set_status(lora.id, status)
        return lora.id

    # A base of its own: the tests of this file share their tables.
    make("hunyuan-video", LoraStatus.FAILED)
    assert tables.proofs.ready_lora("hunyuan-video", is_simulated=True) is None
    make("hunyuan-video", LoraStatus.READY)
    newest = make("hunyuan-video", LoraStatus.READY)
    make("sdxl", LoraStatus.READY)
    assert tables.proofs.ready_lora("hunyuan-video", is_simulated=True) == newest
    assert tables.proofs.ready_lora("hunyuan-video", is_simulated=False) is None


class PublishingVendor(StandinVendor):
    """A vendor that publishes schemas: what looking at one says is told beforehand, None for all well."""

    def __init__(self, told: OnModelError | None) -> None:
        super().__init__(name="fal")
        self._told = told

    def live_schema(self, model: Model) -> LiveSchema:
        if self._told is not None:
            raise self._told
        return LiveSchema(fields=frozenset({"prompt"}), required=frozenset(), read_at=NOW)

    def check_schema(self, model: Model, request: VendorRequest) -> None:
        assert request.arguments


def schema_read(tables: PortsForTests, key: str, told: OnModelError | None) -> tuple[Proof | None, PublishingVendor]:
    vendor = PublishingVendor(told)
    ports = PortsForTests(tables.settings, {"fal": vendor}, tables.clock)
    try:
        return read_schema(ports, plan_probe(ports, key)), vendor
    finally:
        ports.close()


@pytest.mark.parametrize("key", ["kling_v21", "fal_flux_lora_fast"])
def test_a_model_whose_schema_has_changed_is_told_and_nothing_is_bought(tables: PortsForTests, key: str) -> None:
    proof, vendor = schema_read(tables, key, Rejected("it has no field 'duration' any more"))
    assert proof is not None
    assert (proof.verdict, proof.job_keys, vendor.posts) == (Verdict.SCHEMA_CHANGED, (), [])
    assert tables.proofs.newest(key, "fal") == proof


def test_a_schema_that_is_as_we_write_it_decides_for_trainers_alone(tables: PortsForTests) -> None:
    trainer, _ = schema_read(tables, "fal_flux_lora_fast", None)
    assert trainer is not None
    assert trainer.verdict is Verdict.WORKS
    assert schema_read(tables, "kling_v21", None)[0] is None


def test_a_schema_that_cannot_be_read_proves_nothing(tables: PortsForTests) -> None:
    assert schema_read(tables, "kling_v21", Unavailable("its page is away"))[0] is None
    with pytest.raises(Unavailable):
        schema_read(tables, "fal_flux_lora_fast", Unavailable("its page is away"))
    assert tables.proofs.all_newest() == ()


# --- templates ---


def written(folder: Path, workflow: object) -> Path:
    path = folder / "workflow.json"
    path.write_text(json.dumps(workflow))
    return path


def imported(ports: PortsForTests, folder: Path, name: str = "mine", **fields: Any) -> WorkflowTemplate:
    facts: dict[str, Any] = {"kind": "image", "base_model": "sdxl", "targets": TARGETS}
    return import_template(ports, written(folder, WORKFLOW), name, **(facts | fields))


def test_the_built_in_workflows_are_there_from_the_start_and_stay(tables: PortsForTests, tmp_path: Path) -> None:
    built_in = tables.templates.get("sdxl")
    assert built_in.is_built_in
    assert built_in.targets[Parameter.PROMPT]
    with pytest.raises(BadInput, match="built in"):
        tables.templates.delete("sdxl")
    with pytest.raises(BadInput, match="under another --name"):
        imported(tables, tmp_path, "sdxl")
    assert tables.templates.get("sdxl") == built_in


def test_a_built_in_workflow_is_renewed_and_never_takes_a_persons_place(tables: PortsForTests, tmp_path: Path) -> None:
    mine = imported(tables, tmp_path, "later")
    keep_templates(tables.database, [mine.model_copy(update={"is_built_in": True, "kind": "video"})])
    assert tables.templates.get("later") == mine
    ours = tables.templates.get("sdxl")
    keep_templates(tables.database, [ours.model_copy(update={"workflow": WORKFLOW})])
    assert tables.templates.get("sdxl").workflow == WORKFLOW
    keep_templates(tables.database, [ours])
    assert tables.templates.get("sdxl") == ours


def test_an_imported_workflow_comes_back_whole_and_can_be_replaced(tables: PortsForTests, tmp_path: Path) -> None:
    imported(tables, tmp_path)
    kept = tables.templates.get("mine")
    assert kept.workflow == WORKFLOW
    assert kept.targets[Parameter.PROMPT] == (Target(title="Positive", input="text"),)
    imported(tables, tmp_path, targets=("prompt=node:3.text", "seed=class:KSampler.seed"))
    assert tables.templates.get("mine").targets[Parameter.PROMPT] == (Target(node_id="3", input="text"),)


@pytest.mark.parametrize(
    ("workflow", "targets", "said"),
    [
        ({"nodes": [], "links": []}, TARGETS, "editor"),
        ([1, 2], TARGETS, "holds no workflow"),
        (WORKFLOW, ("prompt=class:CLIPTextEncode.text", TARGETS[1]), "2, 3"),
        (WORKFLOW, ("prompt=title:Nobody.text", TARGETS[1]), "no node"),
        (WORKFLOW, ("prompt=title:Positive.words", TARGETS[1]), "no input"),
        (WORKFLOW, ("prompt=title:Positive.clip", TARGETS[1]), "another node"),
        (WORKFLOW, TARGETS[1:], "prompt"),
    ],
)
def test_a_workflow_that_cannot_be_filled_safely_is_refused_and_not_kept(
    tables: PortsForTests, tmp_path: Path, workflow: object, targets: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        import_template(
            tables, written(tmp_path, workflow), "refused", kind="image", base_model="sdxl", targets=targets
        )
    assert "refused" not in {template.name for template in tables.templates.all()}


def test_a_file_that_is_no_json_and_a_base_nobody_knows_are_refused(tables: PortsForTests, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(BadInput, match="no JSON"):
        import_template(tables, broken, "mine", kind="image", base_model="sdxl", targets=TARGETS)
    with pytest.raises(BadInput, match="no base model 'sdxxl'"):
        imported(tables, tmp_path, base_model="sdxxl")
    with pytest.raises(BadInput, match="no name for a template"):
        imported(tables, tmp_path, "../mine")


# --- profiles ---


def model_of(ports: PortsForTests, key: str = "flux_lora") -> Model:
    """A ComfyUI model that draws with SDXL, whatever the registry calls it."""
    changes = {"template": "sdxl", "vendor": "comfyui", "base_model": "sdxl"}
    return ports.registry.model(key).model_copy(update=changes)


def test_a_characters_profile_goes_before_its_projects_and_that_before_the_default(
    tables: PortsForTests, tmp_path: Path
) -> None:
    imported(tables, tmp_path)
    season_id = store_season(tables, "profiled")
    mei = tables.cast.of_season(season_id)[0].id
    model = model_of(tables)

    def chosen(character_id: int | None) -> str | None:
        profile = profile_for(tables, season_id, character_id, model)
        return profile.name if profile is not None else None

    assert chosen(mei) is None
    set_profile(tables, "everybody", is_default=True, template="mine")
    assert chosen(mei) == "everybody"
    set_profile(tables, "project", project="profiled", template="mine")
    assert (chosen(mei), chosen(None)) == ("project", "project")
    set_profile(tables, "mei", character="profiled/Mei", template="sdxl", lora_strength=1.2)
    assert (chosen(mei), chosen(None)) == ("mei", "project")
    found = profile_for(tables, season_id, mei, model)
    assert found is not None
    assert (found.lora_strength, found.template.name) == (1.2, "sdxl")
    tables.profiles.delete("mei")
    tables.profiles.delete("project")
    assert chosen(mei) == "everybody"


def test_a_profile_holds_only_for_workflows_of_its_kind_and_base(tables: PortsForTests, tmp_path: Path) -> None:
    imported(tables, tmp_path)
    season_id = store_season(tables, "other-base")
    set_profile(tables, "everybody", is_default=True, template="mine")
    model = model_of(tables)
    assert profile_for(tables, season_id, None, model) is not None
    assert profile_for(tables, season_id, None, model.model_copy(update={"base_model": "flux-1-dev"})) is None
    assert profile_for(tables, season_id, None, tables.registry.model("wan_22_t2v_lora")) is None
    assert profile_for(tables, season_id, None, model.model_copy(update={"template": None})) is None


def test_a_new_default_takes_the_old_ones_place(tables: PortsForTests, tmp_path: Path) -> None:
    imported(tables, tmp_path)
    set_profile(tables, "one", is_default=True, template="mine")
    set_profile(tables, "two", is_default=True, template="sdxl")
    assert {profile.name: profile.is_default for profile in tables.profiles.all()} == {"one": False, "two": True}


def test_changing_a_profile_changes_only_what_is_named(tables: PortsForTests, tmp_path: Path) -> None:
    imported(tables, tmp_path)
    first = set_profile(tables, "one", is_default=True, template="mine", checkpoint="big.safetensors")
    assert first.lora_strength == 0.8
    changed = set_profile(tables, "one", lora_strength=0.5)
    assert changed == first.model_copy(update={"lora_strength": 0.5})
    assert tables.profiles.get("one") == changed
    assert set_profile(tables, "one", checkpoint="").checkpoint is None


def test_a_profile_names_only_a_ready_lora_of_its_own_character_and_base(tables: PortsForTests) -> None:
    season_id = store_season(tables, "two-of-them", characters=[{"name": "Mei"}, {"name": "Rui"}])
    mei = tables.cast.named(season_id, "Mei")

    def lora(base: str, status: LoraStatus = LoraStatus.READY) -> str:
        made = tables.loras.create(
            mei, base, trainer="t", training_set_id=None, images_count=1, created_by="test", sha256="c" * 64
        )
        tables.loras.set_status(made.id, status)
        return str(made.id)

    ready = lora("sdxl")
    profile = set_profile(tables, "mei", character="two-of-them/mei", template="sdxl", lora=ready)
    assert str(profile.lora_id) == ready
    assert set_profile(tables, "mei", lora="current").lora_id is None
    with pytest.raises(BadInput, match=r"is Mei's"):
        set_profile(tables, "rui", character="two-of-them/Rui", template="sdxl", lora=ready)
    with pytest.raises(BadInput, match=r"is Mei's"):
        set_profile(tables, "all", is_default=True, template="sdxl", lora=ready)
    with pytest.raises(BadInput, match="ignore it without a word"):
        set_profile(tables, "mei", lora=lora("flux-1-dev"))
    with pytest.raises(BadInput, match="failed, not ready"):
        set_profile(tables, "mei", lora=lora("sdxl", LoraStatus.FAILED))
    with pytest.raises(BadInput, match="no LoRA '999999'"):
        set_profile(tables, "mei", lora="999999")


def test_a_characters_lora_is_used_as_its_profile_wants_it(tables: PortsForTests) -> None:
    season_id = store_season(tables, "strengths")
    mei = tables.cast.of_season(season_id)[0]
    model = model_of(tables)
    current = LoraUse(file=BlobRef(sha256="d" * 64, media_type="m", file_name="current"), scale=0.7)

    def used(model: Model = model) -> LoraUse:
        use, word = profiled_lora(tables, season_id, mei.id, model, current, mei.trigger_word)
        assert word == mei.trigger_word
        return use

    assert used() == current
    set_profile(tables, "mei", character="strengths/Mei", template="sdxl", lora_strength=1.3)
    assert used() == current.model_copy(update={"scale": 1.3})
    assert used(tables.registry.model("flux_lora")) == current, "no workflow, no profile"
    sha256 = tables.blobs.put_bytes(b"an older version", "application/octet-stream")
    older = tables.loras.create(
        mei, "sdxl", trainer="t", training_set_id=None, images_count=1, created_by="test", sha256=sha256
    )
    tables.loras.set_status(older.id, LoraStatus.READY)
    set_profile(tables, "mei", lora=str(older.id))
    assert (used().file.sha256, used().scale) == (sha256, 1.3)
    tables.loras.set_status(older.id, LoraStatus.ARCHIVED)
    assert used().file == current.file


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"template": "sdxl"}, "Whose is it"),
        ({"is_default": True}, "give its --template too"),
        ({"is_default": True, "template": "sdxll"}, "did you mean sdxl"),
        ({"is_default": True, "project": "p", "template": "sdxl"}, "one of the three"),
        ({"is_default": True, "template": "sdxl", "lora_strength": 0.0}, "above 0"),
        ({"is_default": True, "template": "sdxl", "lora_strength": 4.5}, "up to 4"),
        ({"is_default": True, "template": "sdxl", "checkpoint": "../x"}, "leads out"),
        ({"character": "Mei", "template": "sdxl"}, "SEASON/NAME"),
    ],
)
def test_a_profile_that_cannot_hold_is_refused_with_the_reason(
    tables: PortsForTests, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        set_profile(tables, "refused", **fields)
    assert tables.profiles.all() == ()


def test_one_character_has_one_profile_for_each_template(tables: PortsForTests) -> None:
    store_season(tables, "once-each")
    set_profile(tables, "first", character="once-each/Mei", template="sdxl")
    with pytest.raises(BadInput, match="'first' already chooses 'sdxl'"):
        set_profile(tables, "second", character="once-each/Mei", template="sdxl")
    set_profile(tables, "second", character="once-each/Mei", template="wan_22_t2v")


# --- the commands ---


def test_templates_and_profiles_are_kept_shown_and_deleted_by_hand(tables: PortsForTests, tmp_path: Path) -> None:
    path = written(tmp_path, WORKFLOW)
    aims = [word for target in TARGETS for word in ("--target", target)]
    with commands_on(tables):
        kept = onmodel(
            "templates", "import", str(path), "--name", "mine", "--kind", "image", "--base-model", "sdxl", *aims
        )
        assert kept.exit_code == 0, kept.err
        assert "mine" in onmodel("templates").out
        shown = onmodel("templates", "show", "mine")
        assert "titled Positive" in shown.out
        assert "KSampler" in shown.out
        out = tmp_path / "out.json"
        assert onmodel("templates", "export", "mine", "--out", str(out)).exit_code == 0
        assert json.loads(out.read_text()) == WORKFLOW
        assert onmodel("templates", "export", "mine", "--out", str(out)).exit_code == 2
        assert onmodel("profiles").out.startswith("No profiles yet")
        assert onmodel("profiles", "set", "all", "--template", "mine", "--default").exit_code == 0
        assert onmodel("profiles", "list", "--json").document["profiles"][0]["for"] == "everybody else"
        refused = onmodel("templates", "delete", "mine")
        assert (refused.exit_code, "profiles all" in refused.err) == (2, True)
        assert onmodel("profiles", "delete", "all").exit_code == 0
        assert onmodel("templates", "delete", "mine").exit_code == 0
        assert onmodel("templates", "show", "mine").exit_code == 2


def test_the_matrix_shows_what_was_proved(tables: PortsForTests) -> None:
    model = tables.registry.model("flux_lora")
    tables.proofs.add(proof_of(model, Verdict.IGNORED, NOW, detail="nothing moved"))
    with commands_on(tables):
        assert "ignored" in onmodel("models", "--vendor", "fal").out
        one = onmodel("models", "flux_lora").out
        assert "nothing moved" in one
        assert "counts as taking none" in one
        document = onmodel("models", "flux_lora", "--json").document["model"]
        assert [proof["verdict"] for proof in document["proofs"]] == ["ignored"]
        assert "not yet" in onmodel("models", "kling_v21").out
        whole = onmodel("models", "--json").document["unsupported"]
        theirs = onmodel("models", "--vendor", "replicate", "--json").document["unsupported"]
        assert {one["vendor"] for one in theirs} == {"replicate"}
        assert len(whole) > len(theirs)
        assert "fal retired it" in onmodel("models", "sora_2").out
        assert onmodel("models", "kling_21").exit_code == 2
        assert onmodel("models", "--vendor", "nobody").exit_code == 2
        assert onmodel("models", "--base", "sdxxl").exit_code == 2
