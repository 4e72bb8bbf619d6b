"""Drawing stills: the character as far as the LoRA holds it, in the place and the shot that the prompt asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from domain.errors import Rejected
from providers.sandbox.engine.layout import LoraFile, Subject, read_lora
from providers.sandbox.engine.picture import Bytes, Floats, cut_subject, load_rgb
from providers.sandbox.engine.scenes import Words, paint_scene
from providers.sandbox.engine.stage import Actor, Stage, compose, framing, label
from providers.sandbox.engine.subjects import find_subjects
from providers.sandbox.engine.words import answer_to, split_words, word_direction

_FULL_AT = 0.75  # strength × scale from which a subject is drawn without a trace of the base model's own person
_EXIF_SOFTWARE = 0x0131
_CUT_BOX = (420, 620)  # px at which a subject is cut from a picture that was given


def draw_still(
    *,
    prompt: str,
    seed: int,
    width: int,
    height: int,
    loras: Sequence[tuple[Path, float]],
    faces: Sequence[Path] = (),
    base: str = "flux-1-dev",
    out: Path,
    image_format: str = "jpeg",
) -> None:
    """Draw `width`×`height` px into `out` as jpeg, png or webp. `loras` are files of `base` with their scales.

    `faces` are pictures of one person: that person, as the first of them shows it, stands in the prompt's scene, beside
    whom the LoRAs draw. Equal arguments give equal bytes; repeating overwrites. `Rejected` when a LoRA or a picture
    cannot be used, with the reason.
    """
    save_still(stage_for(prompt, seed, width, height, loras, base=base, faces=faces).flat(), out, image_format)


def save_still(picture: Image.Image, out: Path, image_format: str) -> None:
    """Label the picture, in sight and in its metadata, and write it."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = "OnModel sandbox"
    match image_format:
        case "jpeg" | "jpg":
            label(picture).save(out, "JPEG", quality=93, subsampling=0, exif=exif)
        case "png":
            label(picture).save(out, "PNG", compress_level=3, exif=exif)
        case "webp":
            label(picture).save(out, "WEBP", quality=93, exif=exif)
        case _:
            raise Rejected(f"The sandbox cannot write pictures as {image_format!r}: ask for jpeg, png or webp.")


def stage_for(
    prompt: str,
    seed: int,
    width: int,
    height: int,
    loras: Sequence[tuple[Path, float]],
    *,
    base: str,
    faces: Sequence[Path] = (),
) -> Stage:
    """The picture that the prompt asks for, in layers. Errors as `draw_still`."""
    words = frozenset(split_words(prompt))
    mixed = mix_seed(prompt, seed)
    actors = actors_of(prompt, mixed, loras, base=base)
    if faces:
        actors.insert(0, cut_actor(faces))
    cast = [a.colour[::9, ::9][a.matte[::9, ::9] > 0.95] * np.float32(255) for a in actors]
    scene = paint_scene(words, mixed, width, height, np.concatenate(cast) if cast else None)
    return compose(words, mixed, scene, actors)


def actors_of(prompt: str, seed: int, loras: Sequence[tuple[Path, float]], *, base: str) -> list[Actor]:
    """The subjects that the prompt calls from the LoRAs; the two files of a Wan 2.2 LoRA draw one. `seed` is mixed."""
    words = frozenset(split_words(prompt))
    together: dict[str, list[tuple[LoraFile, float]]] = {}
    for number, (path, scale) in enumerate(loras):
        lora = read_lora(path, base)
        together.setdefault(lora.pair or str(number), []).append((lora, scale))
    actors = (_actor(files, prompt, words, seed + number) for number, files in enumerate(together.values()))
    return [actor for actor in actors if actor is not None]


def cut_actor(pictures: Sequence[Path]) -> Actor:
    """Who the first picture shows, cut out of it; the others help to tell subject from background."""
    seen = [open_picture(path) for path in pictures]
    cut = cut_subject(seen[0], find_subjects(seen)[0], *_CUT_BOX)
    return Actor(cut.colour, cut.matte, cut.aspect, cut.is_cut_below)


def open_picture(path: Path) -> Bytes:
    try:
        return load_rgb(path, 2048)
    except (OSError, ValueError, SyntaxError) as error:
        raise Rejected(f"The picture {path.name} cannot be read ({error}): send a JPEG, PNG or WebP.") from error


def mix_seed(prompt: str, seed: int) -> int:
    """One number of 32 bits from both, so that another prompt is another picture for the same seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt}".encode()).digest()[:4], "big")


def _actor(files: Sequence[tuple[LoraFile, float]], prompt: str, words: Words, seed: int) -> Actor | None:
    """The subject as its file or files hold it, or None when they hold none, are not called or are switched off."""
    strength = 0.0
    chosen: Subject | None = None
    for lora, scale in files:
        is_used = lora.strengths > 1e-3
        if scale <= 0 or not is_used.any():
            continue
        called = answer_to(prompt, lora.codes[is_used].mean(axis=0))
        if called <= 0:
            continue
        subject = lora.subject(_choose(lora, words, seed))
        strength += subject.strength * called * scale
        chosen = chosen or subject
    if chosen is None:
        return None
    colour, scale = chosen.colour, max(scale for _, scale in files)
    if scale > 1.4:
        colour = _overcook(colour, chosen.matte, scale)
    return Actor(colour, chosen.matte, chosen.aspect, chosen.is_cut_below, min(1.0, strength / _FULL_AT))


def _choose(lora: LoraFile, words: Words, seed: int) -> int:
    """The atom that answers the prompt best; the seed decides among those that answer alike."""
    directions = [word_direction(word, lora.codes.shape[1]) for word in sorted(words)]
    answers = lora.codes @ np.sum(directions, axis=0) if directions else np.zeros(len(lora.codes), np.float32)
    shot = framing(words)
    fits = np.zeros(len(lora.codes), dtype=np.float32)
    for atom, (aspect, is_cut) in enumerate(zip(lora.aspects, lora.is_cut_below, strict=True)):
        is_whole = not is_cut and aspect < 0.72
        match shot:
            case "close":
                fits[atom] = 1.0 if is_cut and aspect > 0.6 else 0.4 if is_cut else 0.0
            case "full" | "wide":
                fits[atom] = 1.2 if is_whole else 0.4 if aspect < 0.8 else 0.0
            case "medium":
                fits[atom] = 1.0 if is_cut else 0.4
            case _:
                fits[atom] = 0.6
    noise = np.random.default_rng([seed, 3]).normal(0, 0.1, len(fits))
    scores = answers + 0.4 * fits + 1.8 * lora.merit + noise - 10.0 * (lora.strengths <= 1e-3)
    return int(scores.argmax())


def _overcook(colour: Floats, matte: Floats, scale: float) -> Floats:
    """A LoRA turned up too far burns: contrast and colour run over, as with the real thing."""
    grey = colour.mean(axis=-1, keepdims=True)
    gain = np.float32(1 + 0.6 * (scale - 1.4))
    burnt: Floats = np.clip(grey + (colour - grey) * gain + (grey - 0.5 * matte[..., None]) * (gain - 1), 0, 1)
    return burnt
