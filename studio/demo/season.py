"""Writes the demo's folder: clips, art and the `season.yaml` that a newcomer may copy for a season of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from PIL import ImageFilter
from pydantic import Field

from domain.errors import BadInput
from domain.records import Record
from studio.demo import poses
from studio.demo.cast import draw_character
from studio.demo.clips import Reel, film_reel
from studio.demo.designs import Outfit
from studio.demo.scenes import paint_scene
from studio.demo.storyboard import REELS

_STAMP: Final = ".drawn.json"


class _Stamp(Record):
    """What was drawn here: the version of the drawing code, and the SHA-256 of every file it wrote."""

    version: str = ""
    files: dict[str, str] = Field(default_factory=dict)


def draw_demo(folder: Path, *, ffmpeg: str, workers: int = 2, reels: tuple[Reel, ...] = REELS) -> Path:
    """Draw everything that is not there yet and return the path of `season.yaml`.

    Repeatable: what was drawn by this same version is left alone, and so is a `season.yaml` that a person has
    edited. Deterministic for one version of Pillow and ffmpeg. About 12 s on two cores, then nothing.
    `ffmpeg` is the path of the binary; `NotConfigured` when it cannot be started. `reels` are the clips to film.
    With more than one worker it starts processes by spawning, so a script that calls it needs its `__main__` guard.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: name a folder for the demo.")
    for name in ("clips", "art"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    version, stamp = content_version(), _read_stamp(folder)
    known = dict(stamp.files)
    is_current = stamp.version == version

    def is_there(name: str) -> bool:
        path = folder / name
        return is_current and path.is_file() and known.get(name) == _sha256(path)

    def wrote(name: str) -> None:
        known[name] = _sha256(folder / name)
        _write_stamp(folder, _Stamp(version=version, files=known))

    manifest = folder / "season.yaml"
    is_edited = manifest.is_file() and known.get("season.yaml") != _sha256(manifest)
    if not is_current:
        known = {name: digest for name, digest in known.items() if name == "season.yaml"}

    missing = [reel for reel in reels if not is_there(f"clips/{reel.file_name}")]
    missing.sort(key=lambda reel: -reel.seconds * reel.width * reel.height * (1.5 if reel.is_rainy else 1.0))
    stills = [name for name in STILLS if not is_there(f"art/{name}")]
    if workers > 1 and len(missing) > 1:
        with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_film, reel, folder / "clips", ffmpeg) for reel in missing]
            jobs += [pool.submit(_draw_still, name, folder / "art") for name in stills]
            for job in as_completed(jobs):
                wrote(job.result())
    else:
        for reel in missing:
            wrote(_film(reel, folder / "clips", ffmpeg))
        for name in stills:
            wrote(_draw_still(name, folder / "art"))
    if not is_edited and not is_there("season.yaml"):
        _write_whole(manifest, MANIFEST.encode())
        wrote("season.yaml")
    return manifest


def content_version() -> str:
    """Digest of the drawing code itself: whoever changes a line here gets new pictures."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _film(reel: Reel, folder: Path, ffmpeg: str) -> str:
    """One clip; top-level so that a spawned process can be asked for it."""
    return f"clips/{film_reel(reel, folder, ffmpeg).name}"


def _draw_still(name: str, folder: Path) -> str:
    part = folder / f"part-{name}"
    STILLS[name](part)
    part.replace(folder / name)
    return f"art/{name}"


def _sheet(who: str) -> Callable[[Path], None]:
    return lambda path: draw_character(who, "front", "smile", 1024).save(path, "PNG")


def _dario_bust(path: Path) -> None:
    draw_character("dario", "three_quarter", "sly", 1024, framing="bust").save(path, "PNG")


def _mei_at_work(path: Path) -> None:
    draw_character(
        "mei", "three_quarter", "calm", 1024, framing="bust", pose=poses.on_hip(40), outfit=Outfit(fade=-0.5)
    ).save(path, "PNG")


def _on_location(who: str, place: str, expression: str, framing: str = "bust") -> Callable[[Path], None]:
    """A wide still of one person in a soft-focus place: a first frame that an image-to-video model can film."""

    def draw(path: Path) -> None:
        scene = paint_scene(place).picture.convert("RGB").resize((1280, 720)).filter(ImageFilter.GaussianBlur(7))
        person = draw_character(who, "front", expression, 720, framing=framing, background=None)
        scene.paste(person, (280, 0), person)
        scene.save(path, "PNG")

    return draw


def _pier(path: Path) -> None:
    paint_scene("pier").picture.save(path, "PNG")


STILLS: Final[dict[str, Callable[[Path], None]]] = {
    "mei-front.png": _sheet("mei"),
    "mei-bust.png": _mei_at_work,
    "rui-front.png": _sheet("rui"),
    "tova-lighthouse.png": _on_location("tova", "lighthouse", "smile"),
    "dario-tram.png": _on_location("dario", "tram", "sly"),
    "dario-bust.png": _dario_bust,
    "pier.png": _pier,
}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_stamp(folder: Path) -> _Stamp:
    try:
        return _Stamp.model_validate(json.loads((folder / _STAMP).read_text()))
    except (OSError, ValueError):
        return _Stamp()  # nothing drawn yet, or a stamp that cannot be trusted: draw again


def _write_stamp(folder: Path, stamp: _Stamp) -> None:
    _write_whole(folder / _STAMP, stamp.model_dump_json(indent=1).encode())


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f"part-{path.name}")
    part.write_bytes(data)
    part.replace(path)


MANIFEST: Final = """\
# Neon Harbor, the demo's season: four drawn people, four shots already won, six still to make.
# It runs in the sandbox: no key, no GPU, no money. To make your own season, copy this file,
# put your clips beside it and change the names. Paths are relative to this file.

season: neon-harbor            # the slug: its name in `onmodel status neon-harbor`
owner: demo
time_zone: Europe/Lisbon
budget_usd: 60                 # nothing is bought beyond this; the sandbox reckons with real prices and bills nobody
vendor: sandbox                # sandbox | fal | runpod | replicate | comfyui | local
review: false                  # true: you look at the reference pictures before they are pinned

characters:
  # Two learn a look for stills (FLUX). In the video models a LoRA-made still then leads the way.
  - name: Mei Kobayashi
    description: fisher's daughter, red scarf, short black hair, navy peacoat
    trigger_word: MEIKOB_01    # the made-up word that means her; made from the name when left out
    kind: illustrated          # person | illustrated | other
    base_models: [flux-1-dev]  # one LoRA is trained for each
    clips:                     # winning clips to learn from: clear, well lit, mostly alone, many angles
      - clips/slot-01.mp4
      - clips/mei-lighthouse.mp4
      - clips/mei-market-portrait.mp4
    images: [art/mei-front.png, art/mei-bust.png]
    references: [art/mei-front.png]   # the original references, used wherever there is no LoRA
    training: {steps: 1000}

  - name: Rui Salgado
    description: tall inspector, mustard trench coat, grey beard, brown fedora
    trigger_word: RUISAL_01
    kind: illustrated
    base_models: [flux-1-dev]
    clips:
      - clips/slot-02.mp4
      - clips/rui-tram.mp4
      - clips/rui-rooftop.webm
    images: [art/rui-front.png]
    references: [art/rui-front.png]
    training: {steps: 1000}

  # One learns a look for a video model: Wan 2.2 takes the LoRA directly.
  - name: Tova Lind
    description: small girl, teal raincoat, ginger bun, brass goggles on her forehead
    trigger_word: TOVLIN_01
    kind: illustrated
    base_models: [wan-22-t2v-a14b]
    clips:
      - clips/slot-03.mp4
      - clips/tova-rain.mp4
      - clips/tova-rooftop.mp4
      - clips/tova-tram.mp4
    references: [art/tova-lighthouse.png]
    training: {steps: 400}

  # And one is not trained at all: his two drawings go along as they are.
  - name: Dario Velez
    description: bald gentleman in a purple suit, grand moustache, lime pocket square
    kind: illustrated
    clips: [clips/slot-04.mp4]
    references: [art/dario-tram.png, art/dario-bust.png]
    lora: none

slots:                         # 1 to 75, in the season's order; prompts name people with @
  # Already won: these clips go into the season as they are.
  - {number: 1, video: clips/slot-01.mp4}
  - {number: 2, video: clips/slot-02.mp4}
  - {number: 3, video: clips/slot-03.mp4}
  - {number: 4, video: clips/slot-04.mp4}

  # Both are pinned and the model takes elements: their reference pictures are named in the prompt.
  - number: 5
    prompt: "@Mei Kobayashi and @Rui Salgado meet under the string lights of the pier, he lifts his hat, she laughs"
    video_model: kling_o1_reference
    seconds: 5

  # The model takes no LoRA: a still is made with Mei's, then set in motion.
  - number: 6
    prompt: "@Mei Kobayashi runs across the wet pier at night, neon signs behind her"
    video_model: kling_v25_turbo
    seconds: 5
    scene_references: [art/pier.png]

  # The model takes the LoRA itself: Tova's goes straight in.
  - number: 7
    prompt: "@Tova Lind jumps over puddles in the rain, laughing, shop windows glowing"
    video_model: wan_22_t2v_lora
    seconds: 5

  # No LoRA: Dario's original references.
  - number: 8
    prompt: "@Dario Velez straightens his pocket square in the night tram and smiles at nobody"
    video_model: hailuo_23
    seconds: 6

  # This one takes no LoRA, and hers is for Wan: Wan's own text-to-image draws the still that leads the way.
  - number: 9
    prompt: "@Tova Lind waves from the lighthouse gallery at dusk, the beam turning above her"
    video_model: veo_31
    seconds: 4

  # Slot 10 is left open on purpose: the report names the gap.
  - number: 11
    prompt: "@Rui Salgado waits at the tram stop at sunrise, collar up, the city waking behind him"
    video_model: kling_v21
    seconds: 5
"""
"""The demo's manifest, and the newcomer's template."""
