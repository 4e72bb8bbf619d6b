"""The process that does a job's work: reads orders from stdin, runs the engine, answers on stdout, line by line.

Started by `work.py` as `python -m providers.sandbox.runner ENGINE`, where ENGINE is the package with `training`,
`drawing`, `filming` and `describing`. It dies with its server: when stdin closes it stops at once, in the middle of a
job too.
"""

from __future__ import annotations

import functools
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
from providers.sandbox.asked import clip_seconds, clip_size, picture_format, shown_rate, still_size
from providers.sandbox.clip_stills import stills_of_clips
from providers.sandbox.inputs import InputRefused, Inputs
from providers.sandbox.lora_marks import expert_of
from providers.sandbox.schemas import Endpoint, issue, load_catalogue
from providers.sandbox.shelf import Shelf

EXPERT_OF_FIELD = {"diffusers_lora_file": "low", "high_noise_lora": "high"}
"""Of a trainer that answers with two files (reference 2.1)."""


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
    loc: list[str | int] = ["body", work["zip_field"]]
    url = given[work["zip_field"]]
    archive, has_clips = bench.inputs.training_zip(url, loc, work["min_images"], work.get("takes", "images"))
    steps = int(given[work["steps_field"]] or work["default_steps"])
    trigger = given.get(work.get("trigger_field") or "") or ""
    # A trainer without a trigger field reads captions alone and, unless one is given for all, wants every one of them.
    if "default_caption" in given and given["default_caption"] is None:
        bench.inputs.check_captions(archive, url, loc)
    answer: dict[str, Any] = {}
    try:
        pictures = stills_of_clips(archive, bench.folder) if has_clips else archive
        for role in work["lora_roles"]:
            expert = EXPERT_OF_FIELD[role] if len(work["lora_roles"]) > 1 else given.get("expert")
            out = bench.folder / f"{role}.safetensors"
            loss = bench.part("training").train_lora(
                pictures,
                base=base_of(bench),
                trigger_word=trigger,
                steps=steps,
                learning_rate=given.get("learning_rate"),
                rank=given.get("rank") or 16,
                style=given.get("style"),
                expert=expert,
                out=out,
                on_progress=_teller(bench, steps),
            )
            answer[role] = bench.add_file(out, _weights_name(expert), "application/octet-stream")
    except BadTrainingSet as error:
        raise InputRefused(issue(loc, "invalid_archive", error.message, url)) from error
    config = bench.folder / "config.json"
    facts = {"base_model": base_of(bench), "trigger_word": trigger, "steps": steps, "final_loss": loss, "sandbox": True}
    config.write_text(json.dumps(facts))
    return {**answer, "config_file": bench.add_file(config, "config.json", "application/json")}


def _teller(bench: Workbench, steps: int) -> Callable[[int, int, float], None]:
    every = max(1, steps // 20)

    def on_progress(step: int, of: int, loss: float) -> None:
        if step % every == 0 or step == of:
            bench.log(f"step {step}/{of} loss {loss:.5f}")

    return on_progress


def _weights_name(expert: str | None) -> str:
    return f"pytorch_lora_weights{f'_{expert}_noise' if expert else ''}.safetensors"


def draw(bench: Workbench) -> dict[str, Any]:
    given, kind, seed = bench.input, picture_format(bench.input), bench.seed()
    faces = _pictures(bench, bench.endpoint.work.get("faces_field"))
    loras = loras_of(bench) if "loras" in given else []
    width, height = still_size(given, _aspect_of(faces[0]) if faces else 1.0)
    images = []
    for index in range(given.get("num_images") or 1):
        out = bench.folder / f"image-{index}.{kind}"
        bench.part("drawing").draw_still(
            prompt=given["prompt"],
            seed=seed + index,
            width=width,
            height=height,
            loras=loras,
            faces=[] if "faces" in bench.ignored else faces,
            base=base_of(bench),
            out=out,
            image_format=kind,
        )
        if bench.is_flagged:
            _blacken(out, width, height, kind)
        images.append(bench.add_file(out, f"image-{index}.{kind}", f"image/{kind}", width=width, height=height))
    flags = [bench.is_flagged] * len(images)
    every = {"images": images, "image": images[0], "timings": {}, "seed": seed, "has_nsfw_concepts": flags}
    every["prompt"] = given["prompt"]
    return {name: every[name] for name in bench.endpoint.work["outputs"]}


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
    width, height = given["width"], given["height"]
    rate, seconds = given["frames_per_second"], given["seconds"]
    shot = functools.partial(_film, bench, width / height, min(width, height), seconds, rate)
    used = {"loras": loras_of(bench), "base": base_of(bench)} if given["loras"] else {}
    if given["image"]:
        picture = bench.inputs.picture(given["image"], ["input", "image"], any_picture)
        return shot("film_image", image=picture, **used)
    if given["references"]:
        pictures = [bench.inputs.picture(url, ["input", "references"], any_picture) for url in given["references"]]
        elements = [] if "references" in bench.ignored else [[picture] for picture in pictures]
        return shot("film_elements", elements=elements, images=[])
    return shot("film_text", **{"loras": [], **used})


def base_of(bench: Workbench) -> str:
    """The base model of a job: its endpoint's, or where that serves several, the one it names."""
    return str(bench.endpoint.work.get("base") or bench.input["base_model"])


def _blacken(path: Path, width: int, height: int, kind: str) -> None:
    """What fal does with a flagged picture: no error, only black (reference 2.2)."""
    from PIL import Image

    Image.new("RGB", (width, height)).save(path, format=kind)


def film(bench: Workbench) -> dict[str, Any]:
    """A clip of whatever was given: a first frame, elements in a scene, pictures of characters, LoRAs, words alone.

    A first frame shows already who its elements are. Where LoRAs are given beside pictures, the first picture is the
    place and the LoRAs say who is in it, so that both are to be seen.
    """
    given, work = bench.input, bench.endpoint.work
    image_field = work.get("image_field", "image_url")
    first = _pictures(bench, image_field if image_field in bench.endpoint.fields else None)
    for field in ("tail_image_url", "end_image_url"):
        _pictures(bench, field if field in bench.endpoint.fields else None)
    references = _pictures(bench, work.get("references_field"))
    elements = _elements(bench)
    others = _pictures(bench, "image_urls" if work.get("references_field") != "image_urls" else None)
    used = {"loras": loras_of(bench), "base": base_of(bench)} if "loras" in given else {}
    seen = first or references or others
    aspect, height = clip_size(bench.endpoint, given, _aspect_of(seen[0]) if first else None)
    shot = functools.partial(
        _film, bench, aspect, height, clip_seconds(bench.endpoint, given), shown_rate(bench.endpoint, given)
    )
    if "elements" in bench.ignored:
        elements, references = [], []
    if used.get("loras") and seen:
        return shot("film_image", image=seen[0], **used)
    if first:
        return shot("film_image", image=first[0])
    if elements or references or work["kind"] == "elements":
        return shot("film_elements", elements=elements or [[one] for one in references], images=others)
    return shot("film_text", **(used or {"loras": [], "base": "wan-22-t2v-a14b"}))


def _elements(bench: Workbench) -> list[list[Path]]:
    """The pictures of each element, the frontal one first."""
    found = []
    for index, element in enumerate(bench.input.get("elements") or []):
        loc: list[str | int] = ["body", "elements", index]
        frontal, field = element["frontal_image_url"], "reference_image_urls"
        named = [(frontal, [*loc, "frontal_image_url"])] if frontal else []
        named += [(url, [*loc, field, number]) for number, url in enumerate(element[field] or [])]
        found.append([bench.inputs.picture(url, where, bench.limits(field)) for url, where in named])
    return found


def _pictures(bench: Workbench, field: str | None) -> list[Path]:
    """The pictures behind a field, one or several; none where the endpoint has no such field or nothing is in it."""
    given = bench.input.get(field) if field is not None else None
    if not given or field is None:
        return []
    if isinstance(given, str):
        return [bench.inputs.picture(given, ["body", field], bench.limits(field))]
    return [bench.inputs.picture(url, ["body", field, n], bench.limits(field)) for n, url in enumerate(given)]


def describe(bench: Workbench) -> dict[str, Any]:
    given = bench.input
    picture = bench.inputs.picture(given["image_url"], ["body", "image_url"], bench.limits("image_url"))
    text = bench.part("describing").describe_picture(picture, length=given["length"])
    # Names of fal's usage figures, counted in words: nothing to bill by.
    usage = {"input_tokens": 0, "output_tokens": len(text.split())}
    return {"output": text, "finish_reason": "stop", "usage_info": usage}


def _film(
    bench: Workbench, aspect: float, height: int, seconds: float, rate: int, shot: str, **what: Any
) -> dict[str, Any]:
    """`height` is the shorter side in pixels."""
    width, height = frame_size(min(height, bench.max_video_height), aspect)
    out, seed = bench.folder / "video.mp4", bench.seed()
    bench.log(f"filming {seconds:g} s at {width}x{height}, {rate} frames per second")
    getattr(bench.part("filming"), shot)(
        prompt=bench.input.get("prompt") or "",
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
    prompt = bench.input.get("prompt") or ""
    every = {"video": video, "prompt": prompt, "seed": seed, "actual_prompt": prompt, "expanded_prompt": None}
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
    "image_video": film,
    "elements": film,
    "text_video": film,
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
