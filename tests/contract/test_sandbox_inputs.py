"""The sandbox judges inputs, pictures, training sets and LoRAs as fal does."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from providers.sandbox.clip_stills import stills_of_clips
from providers.sandbox.schemas import check_input, load_catalogue
from tests.contract.sandbox_fixtures import (
    ELEMENTS,
    KLING,
    STILLS,
    TRAINER,
    WAN_LORA,
    buy,
    finish,
    png,
    running_sandbox,
    sandbox_client,
    small_clip,
    submit,
    training_zip,
    upload,
)

LTX_TRAINER = "fal-ai/ltx23-video-trainer"
CAPTION = "fal-ai/moondream3-preview/caption"


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (STILLS, {"prompt": "x", "guidance": 3}, [("extra_forbidden", "guidance")]),
        (STILLS, {}, [("missing", "prompt")]),
        (STILLS, {"prompt": "x", "num_images": 5}, [("less_than_equal", "num_images")]),
        (STILLS, {"prompt": "x", "num_images": 4}, []),
        (STILLS, {"prompt": "x", "loras": [{"path": "u", "scale": 4.1}]}, [("less_than_equal", "scale")]),
        (STILLS, {"prompt": "x", "loras": [{"url": "u"}]}, [("missing", "path"), ("extra_forbidden", "url")]),
        (STILLS, {"prompt": "x", "image_size": {"width": 640, "height": 480}}, []),
        (STILLS, {"prompt": "x", "image_size": "wide"}, [("literal_error", "image_size")]),
        (STILLS, {"prompt": "x", "seed": None}, []),
        (STILLS, {"prompt": "x", "num_images": None}, [("int_type", "num_images")]),
        (KLING, {"prompt": "x", "image_url": "u", "duration": 5}, [("literal_error", "duration")]),
        (KLING, {"prompt": "x", "image_url": "u", "duration": "10", "tail_image_url": "v"}, []),
        (KLING, {"prompt": "x" * 2501, "image_url": "u"}, [("string_too_long", "prompt")]),
        (KLING, {"prompt": "x", "image_url": "u", "aspect_ratio": "16:9"}, [("extra_forbidden", "aspect_ratio")]),
        ("fal-ai/kling-video/v2.1/standard/image-to-video", {"prompt": "x", "image_url": "u", "tail_image_url": "v"},
         [("extra_forbidden", "tail_image_url")]),
        ("fal-ai/minimax/hailuo-2.3/pro/image-to-video", {"prompt": "x", "image_url": "u", "duration": "6"},
         [("extra_forbidden", "duration")]),
        ("fal-ai/minimax/hailuo-2.3/standard/image-to-video", {"prompt": "x", "image_url": "u", "duration": "6"}, []),
        ("fal-ai/veo3.1/image-to-video", {"prompt": "x", "image_url": "u", "duration": "8"},
         [("literal_error", "duration")]),
        ("fal-ai/veo3.1/image-to-video", {"prompt": "x", "image_url": "u", "duration": "8s"}, []),
        ("fal-ai/wan-25-preview/image-to-video", {"prompt": "x" * 1501, "image_url": "u"},
         [("string_too_long", "prompt")]),
        (LTX_TRAINER, {"training_data_url": "u", "rank": 48}, [("literal_error", "rank")]),
        (LTX_TRAINER, {"training_data_url": "u", "rank": 64, "number_of_frames": 49}, []),
        (LTX_TRAINER, {"training_data_url": "u", "number_of_frames": 50}, [("value_error", "number_of_frames")]),
        ("fal-ai/flux-2-trainer-v2", {"image_data_url": "u", "steps": 20000, "trigger_word": "M"},
         [("extra_forbidden", "trigger_word")]),
        ("minimax/h3/text-to-video/lora", {"prompt": "x"}, [("missing", "loras")]),
        ("fal-ai/ltx-2.3-22b/image-to-video/lora",
         {"prompt": "x", "image_url": "u", "loras": [{"path": "u"}], "video_size": "auto"}, []),
        ("fal-ai/ltx-2.3-22b/text-to-video/lora", {"prompt": "x", "loras": [{"path": "u"}], "video_size": "auto"},
         [("literal_error", "video_size")]),
        (WAN_LORA, {"prompt": "x", "num_frames": 16}, [("greater_than_equal", "num_frames")]),
        (WAN_LORA, {"prompt": "x", "num_frames": 17, "loras": [{"path": "u", "transformer": "both"}]}, []),
        (CAPTION, {"image_url": "u", "length": "long"}, []),
        (CAPTION, {"image_url": "u", "length": "epic"}, [("literal_error", "length")]),
        (CAPTION, {"image_url": "u", "prompt": "x"}, [("extra_forbidden", "prompt")]),
        (CAPTION, {}, [("missing", "image_url")]),
        (TRAINER, {"images_data_url": "u", "learning_rate": 1e-4}, [("extra_forbidden", "learning_rate")]),
        (TRAINER, {"images_data_url": "u", "steps": 0}, [("greater_than_equal", "steps")]),
        (TRAINER, {"images_data_url": "u", "steps": 10.5}, [("int_from_float", "steps")]),
        ("fal-ai/wan-22-trainer/t2v-a14b", {"training_data_url": "u", "number_of_steps": 99},
         [("greater_than_equal", "number_of_steps")]),
    ],
)  # fmt: skip
def test_inputs_are_judged_as_fals_schemas_do(
    endpoint: str, body: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    _, issues = check_input(load_catalogue().endpoints[endpoint], body)
    assert [(entry["type"], entry["loc"][-1]) for entry in issues] == expected
    assert all(entry["loc"][0] == "body" and entry["msg"] for entry in issues)


@pytest.mark.parametrize(("elements", "images", "is_good"), [(1, 6, True), (1, 7, False), (7, 0, True), (0, 0, False)])
def test_kling_takes_at_most_seven_pictures_and_elements(elements: int, images: int, is_good: bool) -> None:
    element = {"frontal_image_url": "u", "reference_image_urls": ["v"]}
    body = {"prompt": "x", "elements": [element] * elements, "image_urls": ["w"] * images}
    _, issues = check_input(load_catalogue().endpoints[ELEMENTS], body)
    assert (not issues) is is_good


@pytest.mark.parametrize(("references", "is_good"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_kling_element_needs_one_to_three_references(references: int, is_good: bool) -> None:
    element = {"frontal_image_url": "u", "reference_image_urls": ["v"] * references}
    _, issues = check_input(load_catalogue().endpoints[ELEMENTS], {"prompt": "x", "elements": [element]})
    assert (not issues) is is_good


def test_a_wrong_input_is_accepted_and_fails_in_the_runner(tmp_path: Path) -> None:
    with running_sandbox(tmp_path) as server, sandbox_client(server.url) as http:
        accepted = submit(http, KLING, {"prompt": "rain", "seed": 7})
        answer = finish(http, accepted)
        status = http.get(accepted["status_url"]).json()
        assert (answer.status_code, answer.headers["X-Fal-Retryable"]) == (422, "false")
        assert {entry["type"] for entry in answer.json()["detail"]} == {"missing", "extra_forbidden"}
        assert (status["status"], status["error"]) == ("COMPLETED", "Field required")
        unknown_path = finish(http, submit(http, "fal-ai/kling-video/v9/image-to-video", {}))
        assert unknown_path.status_code == 404
        assert http.post("https://queue.fal.run/fal-ai/never-heard-of", json={}).status_code == 404
        assert http.post("https://queue.fal.run/fal-ai/flux-lora", content=b"{").status_code == 422


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (png(300, 300), None),
        (png(299, 300), "image_too_small"),
        (png(300, 760), "value_error"),
        (png(760, 300), "value_error"),
        (png(400, 1000), None),
        (b"no picture at all", "image_load_error"),
        (png(300, 300) + bytes(10 * 1024 * 1024), "file_too_large"),
    ],
    ids=["300x300", "299x300", "too tall", "too wide", "aspect 0.40", "text", "over 10 MB"],
)
def test_kling_refuses_pictures_outside_its_limits(
    one_sandbox: httpx.Client, picture: bytes, expected: str | None
) -> None:
    frontal = upload(one_sandbox, picture, "front.png", "image/png")
    other = upload(one_sandbox, png(), "side.png", "image/png")
    element = {"frontal_image_url": frontal, "reference_image_urls": [other]}
    answer = finish(one_sandbox, submit(one_sandbox, ELEMENTS, {"prompt": "x", "elements": [element]}))
    if expected is None:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 422
        (entry,) = answer.json()["detail"]
        assert (entry["type"], entry["loc"]) == (expected, ["body", "elements", 0, "frontal_image_url"])


@pytest.mark.parametrize(
    ("archive", "expected"),
    [(training_zip(4), 200), (training_zip(3), "archive_file_count_below_minimum"), (b"no zip", "invalid_archive")],
    ids=["four images", "three images", "no zip"],
)
def test_a_training_set_needs_four_images(one_sandbox: httpx.Client, archive: bytes, expected: int | str) -> None:
    url = upload(one_sandbox, archive, "set.zip", "application/zip")
    answer = finish(one_sandbox, submit(one_sandbox, TRAINER, {"images_data_url": url, "steps": 5}))
    assert (200 if answer.status_code == 200 else answer.json()["detail"][0]["type"]) == expected


FLUX_2, H3 = "fal-ai/flux-2-trainer", "minimax/h3/t2v/trainer"


def packed(*names: str) -> bytes:
    """A zip of these files; clips and pictures in it are what their names say, `broken.mp4` is not."""
    content = {".mp4": small_clip(), ".png": png(64, 64), ".txt": b"MEIKOB_01 on a pier"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"-" if name.startswith("broken") else content[Path(name).suffix])
    return out.getvalue()


@pytest.mark.parametrize(
    ("trainer", "field", "archive", "expected"),
    [
        (H3, "training_data_url", packed("a.mp4", "a.txt"), None),
        (H3, "training_data_url", packed("a.png"), "must hold videos only"),
        (H3, "training_data_url", packed("a.txt"), "at least 1 videos, found 0"),
        (LTX_TRAINER, "training_data_url", packed("a.mp4", "a.txt"), None),
        (LTX_TRAINER, "training_data_url", packed("a.png", "a.txt"), None),
        (LTX_TRAINER, "training_data_url", packed("a.png", "b.mp4"), "only videos or only images, found 1 and 1"),
        (LTX_TRAINER, "training_data_url", packed("broken.mp4"), "broken.mp4 cannot be decoded"),
        (FLUX_2, "image_data_url", packed("a.png", "a.txt"), None),
        (FLUX_2, "image_data_url", packed("a.png", "b.txt"), "No caption for a.png and no default_caption"),
        (TRAINER, "images_data_url", packed("a.mp4", "b.mp4", "c.mp4", "d.mp4"), "at least 4 images, found 0"),
    ],
)
def test_each_trainer_takes_the_pictures_or_clips_that_it_says(
    one_sandbox: httpx.Client, trainer: str, field: str, archive: bytes, expected: str | None
) -> None:
    url = upload(one_sandbox, archive, "set.zip", "application/zip")
    answer = finish(one_sandbox, submit(one_sandbox, trainer, {field: url}))
    if expected is None:
        assert answer.status_code == 200, answer.text
    else:
        (entry,) = answer.json()["detail"]
        assert expected in entry["msg"]
        assert entry["loc"] == ["body", field]


def test_a_captions_place_can_be_taken_by_one_for_all(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, packed("a.png"), "set.zip", "application/zip")
    assert buy(one_sandbox, FLUX_2, {"image_data_url": url, "default_caption": "MEIKOB_01"})


def test_the_stills_of_a_clip_are_its_own_and_carry_its_caption(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(packed("b/../../one.mp4", "two.mp4", "two.txt", "__MACOSX/x.mp4"))
    with zipfile.ZipFile(stills_of_clips(tmp_path / "set.zip", tmp_path)) as made:
        assert sorted(made.namelist()) == [
            *(f"clip-000-{n}.png" for n in range(4)),
            *(f"clip-001-{n}.{suffix}" for n in range(4) for suffix in ("png", "txt")),
        ]
        first, last = (Image.open(io.BytesIO(made.read(f"clip-001-{n}.png"))).getpixel((9, 9)) for n in (0, 3))
        assert isinstance(first, tuple)
        assert isinstance(last, tuple)
        assert last[0] > first[0] + 60
        assert made.read("clip-001-2.txt") == b"MEIKOB_01 on a pier"


def test_a_lora_of_another_base_fails_the_job(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, training_zip(), "set.zip", "application/zip")
    lora = buy(one_sandbox, TRAINER, {"images_data_url": url, "steps": 5})["diffusers_lora_file"]["url"]
    still = buy(one_sandbox, STILLS, {"prompt": "x", "loras": [{"path": lora, "scale": 0.8}]})
    assert one_sandbox.get(still["images"][0]["url"]).json()["loras"] == [0.8]
    wrong = finish(one_sandbox, submit(one_sandbox, WAN_LORA, {"prompt": "x", "loras": [{"path": lora}]}))
    assert (wrong.status_code, wrong.json()["detail"][0]["type"]) == (422, "lora_incompatible")


def test_a_wan_lora_without_transformer_reaches_one_expert_only(one_sandbox: httpx.Client) -> None:
    url = upload(one_sandbox, training_zip(), "set.zip", "application/zip")
    trained = buy(one_sandbox, "fal-ai/wan-22-trainer/t2v-a14b", {"training_data_url": url, "number_of_steps": 100})
    path = trained["lora_file"]["url"]

    def strength(*loras: dict[str, Any]) -> float:
        film = buy(one_sandbox, WAN_LORA, {"prompt": "x", "num_frames": 17, "loras": list(loras)})
        told = one_sandbox.get(film["video"]["url"]).text.rstrip(".")
        return float(json.loads(told)["loras"][0][1])

    assert strength({"path": path}) == 0.5
    assert strength({"path": path, "transformer": "both"}) == 1.0
    assert strength({"path": path, "transformer": "high"}, {"path": path, "transformer": "low"}) == 1.0


def test_files_outside_this_machine_are_not_fetched(one_sandbox: httpx.Client) -> None:
    for url in ("https://example.org/a.png", "http://10.0.0.1/a.png", "file:///etc/passwd"):
        answer = finish(one_sandbox, submit(one_sandbox, KLING, {"prompt": "x", "image_url": url}))
        assert answer.json()["detail"][0]["type"] == "file_download_error"
