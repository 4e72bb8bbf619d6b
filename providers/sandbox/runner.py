"""The process that does a job's work: reads orders from stdin, runs the engine, answers on stdout, line by line.

Started by `work.py` as `python -m providers.sandbox.runner ENGINE`, where ENGINE is the package with `training`,
`drawing`, `filming` and `describing`. It dies with its server: when stdin closes it stops at once, in the middle of a
job too.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from domain.errors import BadTrainingSet, Rejected
from providers.sandbox.inputs import InputRefused, Inputs
from providers.sandbox.lora_marks import expert_of
from providers.sandbox.schemas import IMAGE_SIZES, Endpoint, issue, load_catalogue
from providers.sandbox.shelf import Shelf

PICTURE_HEIGHTS = {"480p": 480, "580p": 580, "720p": 720, "1080p": 1080, "4k": 2160}
_ASPECTS = {"16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1.0}


@dataclass(frozen=True)
class Workbench:
    """All that one job works with. `output` collects the result; {"$file": n} stands for the nth of `files`."""

    endpoint: Endpoint
    input: dict[str, Any]
    ignored: frozenset[str]
    is_flagged: bool
    max_video_height: int
    folder: Path
    inputs: Inputs
    engine: str
    log: Callable[[str], None]
    files: list[dict[str, Any]]

    def part(self, name: str) -> Any:
        """`training`, `drawing`, `filming` or `describing` of the engine."""
        engine = importlib.import_module(self.engine)
        return getattr(engine, name, None) or importlib.import_module(f"{self.engine}.{name}")

    def add_file(self, path: Path, name: str, content_type: str, **facts: Any) -> dict[str, int]:
        self.files.append({"path": str(path), "name": name, "content_type": content_type, "facts": facts})
        return {"$file": len(self.files) - 1}

    def seed(self) -> int:
        given = self.input.get("seed")
        return random.SystemRandom().randrange(2**31) if given is None else int(given)

    def limits(self, field: str) -> Any:
        catalogue = load_catalogue()
        name = ({**self.endpoint.fields, **catalogue.objects["Element"]})[field].image
        return catalogue.images[name or "any"]


def train(bench: Workbench) -> dict[str, Any]:
    work, given = bench.endpoint.work, bench.input
    archive = bench.inputs.training_zip(given[work["zip_field"]], ["body", work["zip_field"]], work["min_images"])
    steps = int(given[work["steps_field"]] or work["default_steps"])
    trigger = given[work["trigger_field"]] or ""
    out = bench.folder / "lora.safetensors"
    every = max(1, steps // 20)

    def on_progress(step: int, of: int, loss: float) -> None:
        if step % every == 0 or step == of:
            bench.log(f"step {step}/{of} loss {loss:.5f}")

    try:
        loss = bench.part("training").train_lora(
            archive,
            base=base_of(bench),
            trigger_word=trigger,
            steps=steps,
            learning_rate=given.get("learning_rate"),
            rank=given.get("rank") or 16,
            style=given.get("style"),
            expert=given.get("expert"),
            out=out,
            on_progress=on_progress,
        )
    except BadTrainingSet as error:
        msg, url = error.message, given[work["zip_field"]]
        raise InputRefused(issue(["body", work["zip_field"]], "invalid_archive", msg, url)) from error
    config = bench.folder / "config.json"
    facts = {"base_model": base_of(bench), "trigger_word": trigger, "steps": steps, "final_loss": loss, "sandbox": True}
    config.write_text(json.dumps(facts))
    lora_file = bench.add_file(out, "pytorch_lora_weights.safetensors", "application/octet-stream")
    return {work["lora_role"]: lora_file, "config_file": bench.add_file(config, "config.json", "application/json")}


def draw(bench: Workbench) -> dict[str, Any]:
    given, size = bench.input, bench.input["image_size"]
    width, height = IMAGE_SIZES[size] if isinstance(size, str) else (size["width"], size["height"])
    loras, seed, kind = loras_of(bench), bench.seed(), given["output_format"]
    images = []
    for index in range(given["num_images"]):
        out = bench.folder / f"image-{index}.{kind}"
        bench.part("drawing").draw_still(
            prompt=given["prompt"],
            seed=seed + index,
            width=width,
            height=height,
            loras=loras,
            base=base_of(bench),
            out=out,
            image_format=kind,
        )
        if bench.is_flagged:
            _blacken(out, width, height, kind)
        images.append(bench.add_file(out, f"image-{index}.{kind}", f"image/{kind}", width=width, height=height))
    flags = [bench.is_flagged] * len(images)
    return {"images": images, "timings": {}, "seed": seed, "has_nsfw_concepts": flags, "prompt": given["prompt"]}


def draw_neutral(bench: Workbench) -> dict[str, Any]:
    given, seed, kind = bench.input, bench.seed(), bench.input["output_format"]
    any_picture = load_catalogue().images["any"]
    faces = [bench.inputs.picture(url, ["input", "faces"], any_picture) for url in given["faces"]]
    out = bench.folder / f"image.{kind}"
    bench.part("drawing").draw_still(
        prompt=given["prompt"],
        seed=seed,
        width=given["width"],
        height=given["height"],
        loras=loras_of(bench),
        faces=[] if "faces" in bench.ignored else faces,
        base=base_of(bench),
        out=out,
        image_format=kind,
    )
    if bench.is_flagged:
        _blacken(out, given["width"], given["height"], kind)
    image = bench.add_file(out, f"image.{kind}", f"image/{kind}", width=given["width"], height=given["height"])
    return {"images": [image], "seed": seed}


def film_neutral(bench: Workbench) -> dict[str, Any]:
    """A clip of what was given, in this order: a first frame (with whom its LoRAs hold in it), pictures of the
    characters, LoRAs alone."""
    given, any_picture = bench.input, load_catalogue().images["any"]
    size = (given["width"], given["height"])
    rate, seconds = given["frames_per_second"], given["seconds"]
    used = {"loras": loras_of(bench), "base": base_of(bench)} if given["loras"] else {}
    if given["image"]:
        picture = bench.inputs.picture(given["image"], ["input", "image"], any_picture)
        return _film(bench, "film_image", 0.0, seconds, rate, size=size, image=picture, **used)
    if given["references"]:
        pictures = [bench.inputs.picture(url, ["input", "references"], any_picture) for url in given["references"]]
        elements = [] if "references" in bench.ignored else [[picture] for picture in pictures]
        return _film(bench, "film_elements", 0.0, seconds, rate, size=size, elements=elements, images=[])
    return _film(bench, "film_text", 0.0, seconds, rate, size=size, **{"loras": [], **used})


def base_of(bench: Workbench) -> str:
    """The base model of a job: its endpoint's, or where that serves several, the one it names."""
    return str(bench.endpoint.work.get("base") or bench.input["base_model"])


def _blacken(path: Path, width: int, height: int, kind: str) -> None:
    """What fal does with a flagged picture: no error, only black (reference 2.2)."""
    from PIL import Image

    Image.new("RGB", (width, height)).save(path, format=kind)


def film_image(bench: Workbench) -> dict[str, Any]:
    given = bench.input
    picture = bench.inputs.picture(given["image_url"], ["body", "image_url"], bench.limits("image_url"))
    if given.get("tail_image_url"):
        bench.inputs.picture(given["tail_image_url"], ["body", "tail_image_url"], bench.limits("tail_image_url"))
    seconds = float(bench.endpoint.work.get("seconds") or str(given["duration"]).removesuffix("s"))
    aspect = _ASPECTS.get(given.get("aspect_ratio") or "") or _aspect_of(picture)
    return _film(bench, "film_image", aspect, seconds, bench.endpoint.work["frames_per_second"], image=picture)


def film_elements(bench: Workbench) -> dict[str, Any]:
    given = bench.input
    elements = []
    for index, element in enumerate(given["elements"] or []):
        loc: list[str | int] = ["body", "elements", index]
        frontal = bench.inputs.picture(
            element["frontal_image_url"], [*loc, "frontal_image_url"], bench.limits("frontal_image_url")
        )
        limits = bench.limits("reference_image_urls")
        others = [
            bench.inputs.picture(url, [*loc, "reference_image_urls", number], limits)
            for number, url in enumerate(element["reference_image_urls"])
        ]
        elements.append([frontal, *others])
    images = [
        bench.inputs.picture(url, ["body", "image_urls", index], bench.limits("image_urls"))
        for index, url in enumerate(given["image_urls"] or [])
    ]
    if "elements" in bench.ignored:
        elements = []
    aspect, rate = _ASPECTS[given["aspect_ratio"]], bench.endpoint.work["frames_per_second"]
    return _film(bench, "film_elements", aspect, float(given["duration"]), rate, elements=elements, images=images)


def film_text(bench: Workbench) -> dict[str, Any]:
    given = bench.input
    rate = given["frames_per_second"]
    seconds = given["num_frames"] / rate
    if given["interpolator_model"] != "none" and given["adjust_fps_for_interpolation"]:
        rate *= given["num_interpolated_frames"] + 1
    aspect, loras = _ASPECTS[given["aspect_ratio"]], loras_of(bench)
    return _film(bench, "film_text", aspect, seconds, rate, loras=loras, base=base_of(bench))


def describe(bench: Workbench) -> dict[str, Any]:
    given = bench.input
    picture = bench.inputs.picture(given["image_url"], ["body", "image_url"], bench.limits("image_url"))
    text = bench.part("describing").describe_picture(picture, length=given["length"])
    # Names of fal's usage figures, counted in words: nothing to bill by.
    usage = {"input_tokens": 0, "output_tokens": len(text.split())}
    return {"output": text, "finish_reason": "stop", "usage_info": usage}


def _film(
    bench: Workbench,
    shot: str,
    aspect: float,
    seconds: float,
    rate: int,
    *,
    size: tuple[int, int] | None = None,
    **what: Any,
) -> dict[str, Any]:
    """`size` is (width, height) in pixels where the request says it; else endpoint and `aspect` make it."""
    if size is None:
        height = int(bench.endpoint.work.get("height") or PICTURE_HEIGHTS[bench.input["resolution"]])
    else:
        aspect, height = size[0] / size[1], min(size)
    width, height = frame_size(min(height, bench.max_video_height), aspect)
    out, seed = bench.folder / "video.mp4", bench.seed()
    bench.log(f"filming {seconds:g} s at {width}x{height}, {rate} frames per second")
    getattr(bench.part("filming"), shot)(
        prompt=bench.input["prompt"],
        seconds=seconds,
        width=width,
        height=height,
        frames_per_second=rate,
        seed=seed,
        ffmpeg=_find_ffmpeg(),
        out=out,
        **what,
    )
    video = bench.add_file(out, "output.mp4", "video/mp4")
    every = {"video": video, "prompt": bench.input["prompt"], "seed": seed, "actual_prompt": bench.input["prompt"]}
    return {name: every[name] for name in bench.endpoint.work["outputs"]}


def frame_size(height: int, aspect: float) -> tuple[int, int]:
    """Width and height, even, of the class named by `height` (its shorter side; reference: 720p = 1280×720)."""
    wide, high = (height * aspect, float(height)) if aspect >= 1 else (float(height), height / aspect)
    return int(wide / 2 + 0.5) * 2, int(high / 2 + 0.5) * 2


def _aspect_of(picture: Path) -> float:
    from PIL import Image, ImageOps

    with Image.open(picture) as image:
        width, height = ImageOps.exif_transpose(image).size
    return width / height


def loras_of(bench: Workbench) -> list[tuple[Path, float]]:
    """The LoRAs with their strength. Wan 2.2 has two experts: a file that is given to one of them works by half, if it
    is not that expert's own, which holds its half already."""
    strengths: dict[Path, float] = {}
    for index, entry in enumerate(bench.input["loras"]):
        path = bench.inputs.lora(entry["path"], ["body", "loras", index, "path"], base_of(bench))
        expert = entry.get("transformer")
        share = 0.5 if expert in ("high", "low") and expert != expert_of(path) else 1.0
        strengths[path] = strengths.get(path, 0.0) + share * float(1 if entry["scale"] is None else entry["scale"])
    return [] if "loras" in bench.ignored else list(strengths.items())


def _find_ffmpeg() -> str:
    if found := shutil.which("ffmpeg"):
        return found
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


WORK = {
    "train": train,
    "still": draw,
    "image_video": film_image,
    "elements": film_elements,
    "text_video": film_text,
    "neutral_still": draw_neutral,
    "neutral_video": film_neutral,
    "caption": describe,
}


def carry_out(order: dict[str, Any], engine: str, log: Callable[[str], None]) -> dict[str, Any]:
    """Do one job; `{"done": …}` with the files made, or `{"failed": …}` with fal's answer."""
    endpoint = load_catalogue().endpoints[order["endpoint"]]
    folder, files = Path(order["folder"]), list[dict[str, Any]]()
    bench = Workbench(
        endpoint=endpoint,
        input=order["input"],
        ignored=frozenset(order["ignored"]),
        is_flagged=order["is_flagged"],
        max_video_height=order["max_video_height"],
        folder=folder,
        inputs=Inputs(Shelf(Path(order["shelf"])), folder),
        engine=engine,
        log=log,
        files=files,
    )
    try:
        return {"done": WORK[endpoint.work["kind"]](bench), "files": files}
    except InputRefused as refused:
        return {"failed": {"status": 422, "detail": refused.issues, "error": refused.issues[0]["msg"]}}
    except Rejected as refused:
        detail = [issue(["body"], "value_error", refused.message)]
        return {"failed": {"status": 422, "detail": detail, "error": refused.message}}
    except Exception as e:  # noqa: BLE001 - whatever goes wrong in a model's code, fal answers 500
        # fal's word for any accident in the model's own code (docs.fal.ai/errors, November 2026)
        log(f"{type(e).__name__}: {e}")
        detail = [issue(["body"], "internal_server_error", "Internal server error")]
        return {"failed": {"status": 500, "detail": detail, "error": "Internal server error"}}


def main() -> None:
    engine = sys.argv[1]
    # What the engine or ffmpeg prints must not end up between our lines.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_work_off, args=(orders, engine, answers), daemon=True).start()
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)


def _work_off(orders: SimpleQueue[str], engine: str, answers: TextIO) -> None:
    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    while True:
        say(carry_out(json.loads(orders.get()), engine, lambda line: say({"log": line})))


if __name__ == "__main__":
    main()
