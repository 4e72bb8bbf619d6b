"""Layouts: how a training set's files are named and arranged for each kind of trainer, and the texts beside them.

All paths in a text are relative to the folder the zip is unpacked in (`root` puts another folder before them).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePosixPath

from domain.records import Record

LAYOUT_RULES_VERSION = 1
"""Raised whenever names or texts of this file change, so that datasets laid out by older ones are made anew."""

STEPS_PER_IMAGE, FEWEST_STEPS, MOST_STEPS = 120, 1500, 3500
"""A self-hosted training: about 120 steps per image, 1,500 to 3,500 in all (curation_and_identity.md section 1)."""

USUAL_EPOCHS = 10
"""As in sd-scripts' own SDXL example (runpod_trainers.md 3.2)."""

DROPOUT_OF_CAPTIONS = 0.05
"""ai-toolkit's example configuration (runpod_trainers.md 2.2)."""


class LayoutKind(StrEnum):
    """What a trainer's dataset looks like.

    `PLAIN`: pictures and same-stem `.txt` at the top of the zip and nothing else, for fal and Replicate: what those do
    with further files is not confirmed, so the manifest stays beside the zip. `AI_TOOLKIT`, `KOHYA` (sd-scripts) and
    `MUSUBI`: a folder of pictures, the trainer's own dataset text, and the manifest inside. `CLIPS`: `.mp4` and
    `.txt` at the top, for trainers of videos only.
    """

    PLAIN = "plain"
    AI_TOOLKIT = "ai_toolkit"
    KOHYA = "kohya"
    MUSUBI = "musubi"
    CLIPS = "clips"


class TextFile(Record):
    """A text of a dataset at its path inside the zip."""

    path: str
    text: str


class LayoutFacts(Record):
    """What the texts of a layout say of a set. `trigger_word` is letters, digits and underscores only."""

    trigger_word: str
    class_word: str
    image_count: int
    resolutions: tuple[int, ...]
    frames: tuple[int, ...] = ()
    """How many frames its clips have, ascending, where the set is of clips; `fps` is theirs."""
    fps: int | None = None


def folder_of(kind: LayoutKind, facts: LayoutFacts) -> str:
    """The folder that pictures and captions lie in, '' for the top. kohya reads repeats and class from its name."""
    match kind:
        case LayoutKind.PLAIN | LayoutKind.CLIPS:
            return ""
        case LayoutKind.AI_TOOLKIT:
            return facts.trigger_word
        case LayoutKind.KOHYA:
            return f"{repeats_for(facts.image_count)}_{facts.trigger_word} {facts.class_word}"
        case LayoutKind.MUSUBI:
            return "clips" if facts.frames else "images"


def path_in(kind: LayoutKind, facts: LayoutFacts, file_name: str) -> str:
    """Where a file of this name lies in the zip."""
    folder = folder_of(kind, facts)
    return f"{folder}/{file_name}" if folder else file_name


def caption_path(path: str) -> str:
    """The caption beside a picture or clip: same stem, `.txt`."""
    return str(PurePosixPath(path).with_suffix(".txt"))


def has_manifest_inside(kind: LayoutKind) -> bool:
    """Whether the zip carries its manifest.json."""
    return kind not in (LayoutKind.PLAIN, LayoutKind.CLIPS)


def texts_of(kind: LayoutKind, facts: LayoutFacts, root: str = ".") -> tuple[TextFile, ...]:
    """The trainer's own dataset texts; none for the layouts that are pictures and captions alone."""
    match kind:
        case LayoutKind.PLAIN | LayoutKind.CLIPS:
            return ()
        case LayoutKind.AI_TOOLKIT:
            return (TextFile(path="dataset.yaml", text=ai_toolkit_yaml(facts, root)),)
        case LayoutKind.KOHYA:
            return (TextFile(path="dataset.toml", text=kohya_toml(facts, root)),)
        case LayoutKind.MUSUBI:
            return (TextFile(path="dataset.toml", text=musubi_toml(facts, root)),)


def repeats_for(image_count: int, epochs: int = USUAL_EPOCHS) -> int:
    """How often each picture is shown per epoch, so that `epochs` at batch size 1 come to a sane number of steps.

    Steps wanted: 120 per image within 1,500 to 3,500 (see above). Repeats: steps / (images × epochs), rounded, one at
    least: 10 images 15, 20 images 12, 30 images 12.
    """
    steps = min(max(STEPS_PER_IMAGE * image_count, FEWEST_STEPS), MOST_STEPS)
    return max(1, round(steps / (max(1, image_count) * epochs)))


def ai_toolkit_yaml(facts: LayoutFacts, root: str = ".") -> str:
    """The `datasets` part of an ai-toolkit process (fields of runpod_trainers.md 2.2).

    The captions say the trigger word themselves, which text embeddings that are cached need; `trigger_word` is
    therefore not to be set beside it (runpod_trainers.md 2.4).
    """
    return (
        "datasets:\n"
        f"  - folder_path: {_quoted(f'{root}/{facts.trigger_word}')}\n"
        '    caption_ext: "txt"\n'
        '    default_caption: ""\n'
        f"    caption_dropout_rate: {DROPOUT_OF_CAPTIONS}\n"
        "    cache_latents_to_disk: true\n"
        f"    resolution: {_listed(sorted(facts.resolutions))}\n"
        "    num_repeats: 1\n"
    )


def kohya_toml(facts: LayoutFacts, root: str = ".") -> str:
    """sd-scripts' dataset file (runpod_trainers.md 3.2): the trigger word stays in front."""
    side = max(facts.resolutions)
    return (
        "[general]\n"
        'caption_extension = ".txt"\n'
        "enable_bucket = true\n"
        "bucket_no_upscale = true\n\n"
        "[[datasets]]\n"
        f"resolution = {side}\n"
        "batch_size = 1\n\n"
        "[[datasets.subsets]]\n"
        f"image_dir = {_quoted(f'{root}/{folder_of(LayoutKind.KOHYA, facts)}')}\n"
        f"class_tokens = {_quoted(f'{facts.trigger_word} {facts.class_word}')}\n"
        f"num_repeats = {repeats_for(facts.image_count)}\n"
        "keep_tokens = 1\n"
    )


def musubi_toml(facts: LayoutFacts, root: str = ".") -> str:
    """musubi-tuner's dataset file for pictures or clips (runpod_trainers.md 3.1).

    Nothing is enlarged. The cache folder is this dataset's alone, as musubi demands. `source_fps` must be a float.
    """
    folder = folder_of(LayoutKind.MUSUBI, facts)
    side = max(facts.resolutions)
    head = (
        "[general]\n"
        f"resolution = [{side}, {side}]\n"
        'caption_extension = ".txt"\n'
        "batch_size = 1\n"
        "enable_bucket = true\n"
        "bucket_no_upscale = true\n\n"
        "[[datasets]]\n"
    )
    cache = f"cache_directory = {_quoted(f'{root}/cache/{facts.trigger_word}')}\n"
    repeats = f"num_repeats = {repeats_for(facts.image_count)}\n"
    if not facts.frames or facts.fps is None:
        return f"{head}image_directory = {_quoted(f'{root}/{folder}')}\n{cache}{repeats}"
    return (
        f"{head}video_directory = {_quoted(f'{root}/{folder}')}\n{cache}{repeats}"
        f'target_frames = {_listed(facts.frames)}\nframe_extraction = "head"\nsource_fps = {float(facts.fps)}\n'
    )


def _quoted(text: str) -> str:
    """A string as TOML and YAML both read it: JSON's own quoting is valid in either."""
    return json.dumps(text, ensure_ascii=False)


def _listed(numbers: Sequence[int]) -> str:
    return json.dumps(list(numbers))
