"""Workflows are filled under safe rules: each rule from both sides, without a server."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from domain.errors import BadInput, Rejected
from domain.jobs import BlobRef, blob_argument
from domain.model_rules import Model, ModelKind
from domain.profiles import GenerationProfile, Parameter, Target, WorkflowTemplate
from domain.registry import load_registry
from providers.comfyui.injecting import OUR_PREFIX, check_file_name, check_template, find_node, injected
from providers.comfyui.lora_nodes import with_loras
from providers.comfyui.makers import ComfyUiMakers
from providers.comfyui.placing import check_base
from providers.comfyui.templates import built_in_template, built_in_templates, needs
from providers.vendor_ports import CaptionOrder, LoraUse, StillOrder, TrainingOrder, VideoOrder

REGISTRY = load_registry()
MODELS = [model for model in REGISTRY.models if model.vendor == "comfyui"]
MAYA = BlobRef(sha256="a" * 64, media_type="application/octet-stream", file_name="MAYA_01-v1.safetensors")
HIGH = BlobRef(sha256="b" * 64, media_type="application/octet-stream", file_name="MAYA_01-v1-high_noise.safetensors")
BO = BlobRef(sha256="c" * 64, media_type="application/octet-stream", file_name="BO_02-v3.safetensors")
FACE = BlobRef(sha256="f" * 64, media_type="image/png", file_name="face.png")
MAKERS = ComfyUiMakers(REGISTRY, built_in_template, "comfyui")


def template(workflow: dict[str, Any] | None = None, **targets: list[Target]) -> WorkflowTemplate:
    """A small workflow of one's own: checkpoint, texts, sampler, save; no loader."""
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mine.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "_meta": {"title": "Yes"}, "inputs": {"text": "", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "_meta": {"title": "No"}, "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {
            "class_type": "KSampler",
            "inputs": {"model": ["1", 0], "positive": ["2", 0], "seed": 0, "cfg": 7.0, "is_kept": True},
        },
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "mine"}},
    }
    given = {
        "prompt": [Target(title="Yes", input="text")],
        "seed": [Target(class_type="KSampler", input="seed")],
    } | targets
    return WorkflowTemplate(
        name="mine", kind="image", base_model="sdxl", workflow=graph if workflow is None else workflow, targets=given
    )


def with_loaders(*loaders: tuple[str, str, Any]) -> dict[str, Any]:
    """The small workflow with these loaders (id, class, model link) in a row before the sampler."""
    graph = copy.deepcopy(template().workflow)
    for node_id, class_type, model in loaders:
        inputs = {"model": model, "lora_name": "hers.safetensors", "strength_model": 1.0}
        if class_type == "LoraLoader":
            inputs |= {"clip": ["1", 1], "strength_clip": 1.0}
        graph[node_id] = {"class_type": class_type, "inputs": inputs}
        graph["4"]["inputs"]["model"] = [node_id, 0]
        if class_type == "LoraLoader":
            graph["2"]["inputs"]["clip"] = [node_id, 1]
    return graph


def filled(given: WorkflowTemplate, loras: tuple[LoraUse, ...] = ()) -> dict[str, Any]:
    return with_loras(injected(given, {}), given, loras).graph


# --- the built-in workflows and the registry ---


@pytest.mark.parametrize("built_in", built_in_templates(), ids=lambda built_in: built_in.name)
def test_a_built_in_workflow_keeps_every_rule_for_templates(built_in: WorkflowTemplate) -> None:
    check_template(built_in)
    assert set(needs()) <= {one.name for one in built_in_templates()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.key)
def test_every_comfyui_model_has_a_workflow_of_its_kind_and_base(model: Model) -> None:
    assert model.template is not None
    built_in = built_in_template(model.template)
    assert (built_in.kind, built_in.base_model) == (model.kind, model.base_model)
    wanted = {Parameter.PROMPT, Parameter.SEED, Parameter.WIDTH, Parameter.HEIGHT, Parameter.LORA}
    if model.kind is ModelKind.VIDEO:
        wanted |= {Parameter.FRAMES, Parameter.FRAMES_PER_SECOND}
    assert wanted <= set(built_in.targets)
    assert model.lora is not None
    assert model.lora.has_two_experts == (Parameter.LORA_HIGH_NOISE in built_in.targets)


def test_an_unknown_workflow_is_refused_naming_those_there_are() -> None:
    with pytest.raises(BadInput, match="hunyuan_video"):
        built_in_template("hunyuan")


# --- what is a workflow ---


def test_the_editors_format_is_refused_with_the_reason() -> None:
    with pytest.raises(BadInput, match=r"editor.*Export \(API\)"):
        check_template(template({"nodes": [], "links": [], "version": 0.4}))


@pytest.mark.parametrize(
    "workflow",
    [
        {},
        {"1": "text"},
        {"1": {"inputs": {}}},
        {"1": {"class_type": "KSampler"}},
        {"1": {"class_type": 7, "inputs": {}}},
    ],
)
def test_what_is_no_graph_is_refused(workflow: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="API"):
        check_template(template(workflow))


def test_a_link_to_a_node_that_is_missing_is_refused() -> None:
    graph = copy.deepcopy(template().workflow)
    graph["4"]["inputs"]["positive"] = ["9", 0]
    with pytest.raises(BadInput, match="node 9, which is not there"):
        check_template(template(graph))


@pytest.mark.parametrize("missing", ["prompt", "seed"])
def test_a_template_without_a_place_for_prompt_or_seed_is_refused(missing: str) -> None:
    with pytest.raises(BadInput, match=f"where the {missing} goes"):
        check_template(template(**{missing: []}))


def test_a_workflow_that_saves_nothing_is_refused() -> None:
    graph = copy.deepcopy(template().workflow)
    del graph["5"]
    with pytest.raises(BadInput, match="saves nothing"):
        check_template(template(graph))


# --- where a parameter goes ---


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (Target(title="No", input="text"), "3"),
        (Target(class_type="KSampler", input="seed"), "4"),
        (Target(node_id="2", input="text"), "2"),
    ],
)
def test_a_node_is_found_by_title_class_or_id(target: Target, found: str) -> None:
    assert find_node(template().workflow, target, "prompt") == found


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target(title="Maybe", input="text"), "no node with the title 'Maybe'"),
        (Target(class_type="CLIPTextEncode", input="text"), "2, 3 of the workflow all have the class"),
        (Target(node_id="99", input="text"), "no node with the id '99'"),
        (Target(title="Yes", input="words"), "no input 'words'.*it has text, clip"),
        (Target(title="Yes", input="clip"), "comes from another node and is not overwritten"),
    ],
)
def test_more_or_fewer_than_one_place_and_links_are_refused(target: Target, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        injected(template(prompt=[target]), {Parameter.PROMPT: "a pier"})


def test_a_title_that_two_nodes_share_is_refused() -> None:
    graph = copy.deepcopy(template().workflow)
    graph["3"]["_meta"]["title"] = "Yes"
    with pytest.raises(BadInput, match="2, 3 of the workflow all have the title"):
        injected(template(graph), {Parameter.PROMPT: "a pier"})


def test_the_template_itself_is_never_changed() -> None:
    mine = template()
    before = copy.deepcopy(mine.workflow)
    done = injected(mine, {Parameter.PROMPT: "a pier", Parameter.SEED: 7})
    assert mine.workflow == before
    assert done.graph["2"]["inputs"]["text"] == "a pier"
    assert done.graph["3"]["inputs"]["text"] == ""
    assert done.filled == (("2", "text"), ("4", "seed"))


@pytest.mark.parametrize(
    ("input_name", "value", "becomes"), [("seed", 7, 7), ("seed", 7.0, 7), ("cfg", 5, 5.0), ("is_kept", False, False)]
)
def test_a_value_takes_the_kind_of_what_stands_there(input_name: str, value: Any, becomes: Any) -> None:
    mine = template(seed=[Target(node_id="4", input=input_name)])
    put = injected(mine, {Parameter.SEED: value}).graph["4"]["inputs"][input_name]
    assert (put, type(put)) == (becomes, type(becomes))


@pytest.mark.parametrize(
    ("input_name", "value"),
    [("seed", "7"), ("seed", 7.5), ("seed", True), ("is_kept", "false"), ("is_kept", 0), ("cfg", blob_argument(FACE))],
)
def test_a_value_of_another_kind_is_refused(input_name: str, value: Any) -> None:
    with pytest.raises(BadInput, match="seed of node 4"):
        injected(template(seed=[Target(node_id="4", input=input_name)]), {Parameter.SEED: value})


# --- names ---


@pytest.mark.parametrize("name", ["a.safetensors", "faces/maya/v1.safetensors", "ComfyUI", "video/Ünï %date:yyyy%"])
def test_names_below_the_folder_pass(name: str) -> None:
    assert check_file_name(name, "It") == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "../x.png", "a/../../x", "/etc/passwd", "C:x", "~/x", "a\\b", "x.png [output]", "a\nb", "blake3:00"],
)
def test_names_that_climb_or_mean_more_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="write a name below"):
        check_file_name(name, "It")


@pytest.mark.parametrize(("field", "name"), [("image", "../output/x.png"), ("ckpt_name", "/models/x.safetensors")])
def test_a_workflow_that_brings_such_a_name_along_is_refused(field: str, name: str) -> None:
    graph = copy.deepcopy(template().workflow)
    graph["1"]["inputs"][field] = name
    with pytest.raises(BadInput, match=f"{field} of node 1"):
        check_template(template(graph))


# --- LoRAs ---


def test_the_characters_lora_goes_into_the_loader_at_its_strength() -> None:
    graph = filled(template(with_loaders(("7", "LoraLoader", ["1", 0]))), (LoraUse(file=MAYA, scale=0.8),))
    inputs = graph["7"]["inputs"]
    assert inputs["lora_name"] == blob_argument(MAYA)
    assert (inputs["strength_model"], inputs["strength_clip"]) == (0.8, 0.8)


@pytest.mark.parametrize("class_type", ["LoraLoader", "LoraLoaderModelOnly"])
def test_without_a_lora_the_loader_is_bypassed_and_its_own_never_drawn(class_type: str) -> None:
    graph = filled(template(with_loaders(("7", class_type, ["1", 0]))))
    assert "7" not in graph
    assert graph["4"]["inputs"]["model"] == ["1", 0]
    assert graph["2"]["inputs"]["clip"] == ["1", 1]
    assert "hers.safetensors" not in str(graph)


def test_several_loras_are_chained_in_order() -> None:
    uses = (LoraUse(file=MAYA, scale=0.8), LoraUse(file=BO, scale=0.6))
    graph = filled(template(with_loaders(("7", "LoraLoader", ["1", 0]))), uses)
    assert graph["8"]["inputs"] == {
        "model": ["7", 0],
        "clip": ["7", 1],
        "lora_name": blob_argument(BO),
        "strength_model": 0.6,
        "strength_clip": 0.6,
    }
    assert graph["7"]["inputs"]["model"] == ["1", 0]
    assert graph["4"]["inputs"]["model"] == ["8", 0]
    assert graph["2"]["inputs"]["clip"] == ["8", 1]


def test_a_workflow_without_a_loader_gets_one_behind_its_model() -> None:
    graph = filled(template(), (LoraUse(file=MAYA, scale=0.8),))
    assert graph["6"]["class_type"] == "LoraLoaderModelOnly"
    assert graph["6"]["inputs"] == {"model": ["1", 0], "lora_name": blob_argument(MAYA), "strength_model": 0.8}
    assert graph["4"]["inputs"]["model"] == ["6", 0]
    assert graph["2"]["inputs"]["clip"] == ["1", 1]


def test_a_workflow_of_two_models_or_none_gets_no_loader_and_says_so() -> None:
    two = template().workflow | {"9": {"class_type": "UNETLoader", "inputs": {"unet_name": "low.safetensors"}}}
    with pytest.raises(BadInput, match="nodes 1, 9 load one"):
        filled(template(two), (LoraUse(file=MAYA, scale=0.8),))
    own = copy.deepcopy(template().workflow)
    own["1"]["class_type"] = "SomebodysLoader"
    with pytest.raises(BadInput, match="none can be added"):
        filled(template(own), (LoraUse(file=MAYA, scale=0.8),))


@pytest.mark.parametrize("uses", [(), (LoraUse(file=MAYA, scale=0.8),)])
def test_of_two_loaders_the_template_must_name_the_characters(uses: tuple[LoraUse, ...]) -> None:
    two = with_loaders(("7", "LoraLoaderModelOnly", ["1", 0]), ("8", "LoraLoaderModelOnly", ["7", 0]))
    with pytest.raises(BadInput, match="7, 8 of the workflow 'mine' load LoRAs"):
        filled(template(two), uses)
    named = template(two, lora=[Target(node_id="8", input="lora_name")])
    graph = filled(named, uses)
    assert graph["7"]["inputs"]["lora_name"] == "hers.safetensors"  # a style or speed LoRA of the template's own
    assert ("8" in graph) == bool(uses)


def test_a_loader_whose_wires_nobody_knows_is_refused() -> None:
    own = with_loaders(("7", "LoraLoaderModelOnly", ["1", 0]))
    own["7"]["class_type"] = "Power Lora Loader (rgthree)"
    with pytest.raises(BadInput, match="Power Lora Loader"):
        filled(template(own))


def test_a_loader_that_nothing_feeds_cannot_be_bypassed() -> None:
    with pytest.raises(BadInput, match="cannot be left out"):
        filled(template(with_loaders(("7", "LoraLoaderModelOnly", "a text"))))


@pytest.mark.parametrize("high", [None, HIGH])
def test_both_experts_get_a_lora_each_its_own_file_where_there_are_two(high: BlobRef | None) -> None:
    order = VideoOrder(
        model_key="comfyui_wan_22_t2v",
        prompt="a pier",
        seconds=5,
        seed=7,
        loras=(LoraUse(file=MAYA, scale=0.9, high_noise=high),),
    )
    graph = MAKERS.video_request(order).arguments["workflow"]
    assert graph["6"]["inputs"]["lora_name"] == blob_argument(MAYA)
    assert graph["5"]["inputs"]["lora_name"] == blob_argument(high or MAYA)


def test_a_lora_of_two_files_is_not_halved() -> None:
    with pytest.raises(BadInput, match="has a file for each of two experts"):
        filled(template(), (LoraUse(file=MAYA, scale=0.8, high_noise=HIGH),))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("onmodel/flux-1-dev/0123456789ab/maya.safetensors", "flux-1-dev"),
        ("onmodel\\z-image\\0123456789ab\\maya.safetensors", "z-image-turbo"),
        ("onmodel/unknown/0123456789ab/maya.safetensors", "sdxl"),
        ("somebody/put/this.safetensors", "sdxl"),
    ],
)
def test_a_lora_of_the_workflows_base_passes_and_so_does_one_nobody_can_judge(name: str, base: str) -> None:
    check_base(name, base)


def test_a_lora_of_another_base_is_refused_because_the_server_would_say_nothing() -> None:
    with pytest.raises(Rejected, match=r"of flux-1-dev and the workflow loads LoRAs of sdxl.*ignore"):
        check_base("onmodel/flux-1-dev/0123456789ab/maya.safetensors", "sdxl")


# --- orders ---


def still(**given: Any) -> StillOrder:
    fixed = {"model_key": "comfyui_flux_1", "prompt": "MAYA_01 on a pier", "image_size": "landscape_16_9", "seed": 7}
    return StillOrder(**(fixed | given))


def clip(**given: Any) -> VideoOrder:
    return VideoOrder(**({"model_key": "comfyui_wan_22_i2v", "prompt": "a pier", "seconds": 5, "seed": 7} | given))


def test_a_still_is_a_filled_workflow_with_a_mark_for_the_jobs_own_file_name() -> None:
    request = MAKERS.still_request(still(loras=(LoraUse(file=MAYA, scale=0.8),)))
    graph = request.arguments["workflow"]
    assert (request.vendor, request.endpoint) == ("comfyui", "workflow/flux_1")
    assert (request.arguments["output_role"], request.arguments["base_model"]) == ("image", "flux-1-dev")
    assert graph["5"]["inputs"]["text"] == "MAYA_01 on a pier"
    assert (graph["8"]["inputs"]["width"], graph["8"]["inputs"]["height"]) == (1024, 576)
    assert (graph["9"]["inputs"]["seed"], graph["9"]["inputs"]["steps"]) == (7, 28)
    assert graph["6"]["inputs"]["guidance"] == 3.5
    assert graph["11"]["inputs"]["filename_prefix"] == OUR_PREFIX
    assert ["9", "seed"] in request.arguments["filled"]
    assert request.blobs() == (MAYA,)
    assert MAKERS.still_request(still(loras=(LoraUse(file=MAYA, scale=0.8),))) == request


def test_a_clip_has_its_frames_rate_and_shape_and_the_first_frame() -> None:
    request = MAKERS.video_request(clip(image=FACE, aspect_ratio="9:16"))
    graph = request.arguments["workflow"]
    size = graph["12"]["inputs"]
    assert (size["length"], graph["16"]["inputs"]["fps"]) == (81, 16.0)
    assert size["width"] < size["height"]
    assert size["width"] % 32 == size["height"] % 32 == 0
    assert graph["11"]["inputs"]["image"] == blob_argument(FACE)
    assert not any("LoraLoader" in node["class_type"] for node in graph.values())


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (clip(), "films a picture and was given none"),
        (clip(image=FACE, seed=None), "was given no seed"),
        (clip(model_key="comfyui_wan_22_t2v", image=FACE), "takes text and was given image"),
        (clip(image=FACE, seconds=60), "makes clips of"),
        (clip(image=FACE, aspect_ratio="4:3"), "no aspect ratio"),
        (clip(image=FACE, loras=(LoraUse(file=MAYA, scale=9.0),)), "LoRA scale is 9"),
        (clip(model_key="kling_v21", image=FACE), "is fal's and was ordered from comfyui"),
    ],
)
def test_a_clip_that_cannot_be_made_is_refused_before_anything_is_asked(order: VideoOrder, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        MAKERS.video_request(order)


def test_a_profile_brings_its_own_workflow_and_checkpoint() -> None:
    mine = template(checkpoint=[Target(node_id="1", input="ckpt_name")])
    profile = GenerationProfile(name="Maya's", template=mine, checkpoint="season\\two.safetensors")
    order = still(model_key="comfyui_sdxl", profile=profile, loras=(LoraUse(file=MAYA, scale=0.7),))
    request = MAKERS.still_request(order)
    graph = request.arguments["workflow"]
    assert graph["1"]["inputs"]["ckpt_name"] == "season/two.safetensors"
    assert graph["6"]["inputs"]["strength_model"] == 0.7
    assert graph["5"]["inputs"]["filename_prefix"] == OUR_PREFIX


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpoint": "two.safetensors"}, "where the checkpoint goes"),
        ({"template": built_in_template("wan_22_t2v")}, "makes a video"),
        ({"template": template().model_copy(update={"base_model": None})}, "which base its LoRAs are of"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    profile = GenerationProfile(name="Maya's", template=template()).model_copy(update=changes)
    order = still(model_key="comfyui_sdxl", profile=profile, loras=(LoraUse(file=MAYA, scale=0.7),))
    with pytest.raises(BadInput, match=says):
        MAKERS.still_request(order)


def test_comfyui_neither_trains_nor_describes_and_says_who_does() -> None:
    order = TrainingOrder(trainer_key="x", zip=FACE, trigger_word="MAYA_01", steps=10, image_count=5)
    with pytest.raises(BadInput, match="trains no LoRAs"):
        MAKERS.training_request(order)
    with pytest.raises(BadInput, match="describes no pictures"):
        MAKERS.caption_request(CaptionOrder(model_key="x", picture=FACE))
